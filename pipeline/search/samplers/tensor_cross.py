"""Large values of a function on a grid by cross approximation: only small blocks of the tensor are ever computed.

TT-cross with maxvol (Oseledets and Tyrtyshnikov, Linear Algebra Appl. 432, 2010), in the form that looks for an
extremum as TTOpt does (Sozykin et al., NeurIPS 2022, arXiv 2205.00293): index sets left and right of an axis, the block
between them computed, its rows of largest volume are the next index set, and the best row always is among them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from phonefit.pipeline.search.samplers.axes import Floats

Indices = NDArray[np.intp]
OnGrid = Callable[[Indices], Floats]
"""Values at grid points: indices [n, axes] -> float64 [n]; larger is better."""

_SWAPS = 30
_DOMINANT = 1.05
"""maxvol stops when no swap makes the volume larger by more than this factor."""


def maxvol(matrix: Floats) -> Indices:
    """Rows that span a submatrix of nearly the largest volume (Goreinov et al., 2010): matrix [n, r] -> [min(n, r)].

    The start is by greedy elimination; then rows are swapped while that makes the volume larger.
    """
    count, rank = matrix.shape
    if count <= rank:
        return np.arange(count)
    basis, _ = np.linalg.qr(matrix)
    rest, chosen = basis.copy(), np.empty(rank, dtype=np.intp)
    for place in range(rank):
        lengths = np.einsum("ij,ij->i", rest, rest)
        lengths[chosen[:place]] = -1
        chosen[place] = lengths.argmax()
        direction = rest[chosen[place]] / max(float(np.sqrt(lengths[chosen[place]])), 1e-150)
        rest -= np.outer(rest @ direction, direction)
    for _ in range(_SWAPS):
        try:
            coefficients = basis @ np.linalg.inv(basis[chosen])
        except np.linalg.LinAlgError:
            break
        row, column = np.unravel_index(np.abs(coefficients).argmax(), coefficients.shape)
        if abs(coefficients[row, column]) <= _DOMINANT:
            break
        chosen[column] = row
    return chosen


@dataclass
class Seen:
    """Points that were looked at, with their values."""

    points: list[Indices] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)

    def add(self, points: Indices, values: Floats) -> None:
        """Note a block."""
        self.points.append(points)
        self.values.append(values)

    def best(self, count: int) -> tuple[Indices, Floats]:
        """The best distinct points, best first: indices [n, axes], values [n], n at most `count`."""
        points, values = np.concatenate(self.points), np.concatenate(self.values)
        # points by a number each, which is much faster than by rows; that two have one number is next to impossible
        factors = np.random.default_rng(0).integers(1, 2**62, points.shape[1], dtype=np.int64)
        _, places = np.unique(points @ factors, return_index=True)
        order = places[np.argsort(-values[places], kind="stable")[:count]]
        return points[order], values[order]


def cross_sweep(
    values_at: OnGrid, sizes: Sequence[int], starts: Indices, rank: int, seen: Seen, random: np.random.Generator
) -> None:
    """One sweep over the axes, there and back; all that is computed goes to `seen`.

    About 2 * axes * levels * rank^2 values are computed.

    Args:
        sizes: number of levels of each axis.
        starts: points whose ends are the first index sets on the right: [rank, axes].
    """
    axes = len(sizes)
    left: list[Indices] = [np.zeros((1, 0), dtype=np.intp)] * axes
    right = [np.unique(starts[:, axis + 1 :], axis=0) for axis in range(axes)]
    top = -np.inf

    def block(axis: int) -> tuple[Indices, Floats]:
        nonlocal top
        rows, levels, columns = len(left[axis]), sizes[axis], len(right[axis])
        points = np.hstack(
            [
                np.repeat(left[axis], levels * columns, axis=0),
                np.tile(np.repeat(np.arange(levels), columns), rows)[:, None],
                np.tile(right[axis], (rows * levels, 1)),
            ]
        )
        found = values_at(points)
        seen.add(points, found)
        top = max(top, float(found.max()))
        return points, found.reshape(rows, levels, columns)

    def rows_of(values: Floats) -> Indices:
        """The next index set: rows of large volume after a map to positive weights, and the row of the best value."""
        weights = np.exp(np.clip(values - top, -60, 0)) + 1e-12 * random.random(values.shape)
        return np.unique(np.append(maxvol(weights)[:rank], values.max(axis=1).argmax()))

    for axis in range(axes - 1):
        points, found = block(axis)
        columns = found.shape[2]
        chosen = rows_of(found.reshape(-1, columns))
        left[axis + 1] = points[::columns, : axis + 1][chosen]
    for axis in range(axes - 1, 0, -1):
        points, found = block(axis)
        rows = found.shape[0]
        chosen = rows_of(found.reshape(rows, -1).T)
        right[axis - 1] = points[: len(points) // rows, axis:][chosen]
    if axes == 1:
        block(0)


def polish(values_at: OnGrid, sizes: Sequence[int], starts: Indices, rounds: int, seen: Seen) -> None:
    """Coordinate search: from each start, over all levels of each axis, the best single move, again and again.

    Args:
        starts: [n, axes].
    """
    points = starts
    values = np.full(len(points), -np.inf)
    for _ in range(rounds):
        moves = [np.repeat(points, size, axis=0) for size in sizes]
        for axis, size in enumerate(sizes):
            moves[axis][:, axis] = np.tile(np.arange(size), len(points))
        owners = np.concatenate([np.repeat(np.arange(len(points)), size) for size in sizes])
        candidates = np.concatenate(moves)
        found = values_at(candidates)
        seen.add(candidates, found)
        best = np.array(
            [own[found[own].argmax()] for own in (np.flatnonzero(owners == at) for at in range(len(points)))]
        )
        better = found[best] > values + 1e-12
        points, values = candidates[best[better]], found[best[better]]
        if not len(points):
            return
