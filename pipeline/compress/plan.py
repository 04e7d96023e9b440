"""The choice of a plan: candidates, limits and measurements in; the candidate to build next out. Pure functions."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from phonefit.models.artifact import Runtime

# Raised when the same input gives another score, or another plan.
CODE_VERSIONS: Mapping[str, int] = {"plan_score": 1, "plan": 1}
QUALITY = "quality_drop"
SIZES: Mapping[str, str] = {"file_size": "bytes", "peak_memory": "bytes", "ram": "bytes"}
"""Limits of figures that grow with the bytes of the weights; the others grow with the multiply-adds."""
MIXED = "int8_static mixed"
UNTRAINED, TRAINED = 1.0, 0.3
"""Share of what pruning and decomposing cost that is left after recovery, until the first plan was measured."""
LARGEST_SHARE = 2.0


@dataclass(frozen=True)
class Candidate:
    """A combination of techniques, as it was before any training.

    Attributes:
        structure: what was done to the network, for example "prune 0.6".
        precision: scheme of the quantisation, MIXED, or "float".
        changed_loss, rounded_loss: what the changed structure and what the rounding adds to the distance from the
            parent's outputs, as the task's distillation loss.
        changed_share, rounded_share: the same as shares of pictures that are decided otherwise.
        multiply_adds: for one picture.
        bytes: of weights, biases and scales as they are stored.
        layers: number of convolutions and linear layers.
    """

    structure: str
    precision: str
    changed_loss: float
    rounded_loss: float
    changed_share: float
    rounded_share: float
    multiply_adds: int
    bytes: int
    layers: int

    @property
    def name(self) -> str:
        """Structure and precision."""
        return f"{self.structure}, {self.precision}"


@dataclass(frozen=True)
class Point:
    """What a file of one candidate costs on the run's device.

    Attributes:
        figures: limit -> figure; a figure that is not known is left out.
    """

    runtime: Runtime
    structure: str
    precision: str
    multiply_adds: int
    bytes: int
    layers: int
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Knowledge:
    """What predictions are made from.

    Attributes:
        points: what was measured, oldest first.
        share_left: part of the structure's loss that is left after recovery.
        drop_scale: drop of the quality for each picture that is expected to be decided otherwise; None: not measured.
    """

    points: tuple[Point, ...] = ()
    share_left: float = UNTRAINED
    drop_scale: float | None = None

    def loss(self, candidate: Candidate) -> float:
        """Loss that is expected after recovery."""
        return candidate.changed_loss * self.share_left + candidate.rounded_loss

    def drop(self, candidate: Candidate) -> float:
        """Drop of the quality that is expected after recovery, 0..1."""
        changed = candidate.changed_share * self.share_left + candidate.rounded_share
        return min(1.0, changed * (1.0 if self.drop_scale is None else self.drop_scale))

    def known(self, runtime: Runtime, precision: str) -> list[Point]:
        """What was measured of this precision."""
        return [point for point in self.points if (point.runtime, point.precision) == (runtime, precision)]

    def is_measured(self, candidate: Candidate, runtimes: Sequence[Runtime]) -> bool:
        """Whether this very candidate was."""
        return all(
            any(point.structure == candidate.structure for point in self.known(runtime, candidate.precision))
            for runtime in runtimes
        )


def predicted(candidate: Candidate, runtime: Runtime, limit: str, knowledge: Knowledge) -> float:
    """Figure of the candidate's file that the limit is about.

    The last measurement of the candidate itself, if there is one. Else from those of the same precision: a file's size
    is that of its weights and what the nearest measured one had besides, for each layer; memory grows with the weights;
    other figures lie on a line over the multiply-adds through the two nearest measured ones, or are proportional to
    them. Where nothing of the precision was measured, no more than the least that it can be.
    """
    points = [point for point in knowledge.known(runtime, candidate.precision) if limit in point.figures]
    own = [point for point in points if point.structure == candidate.structure]
    if own:
        return own[-1].figures[limit]
    if not points:
        return float(candidate.bytes) if limit == "file_size" else 0.0
    if limit in SIZES:
        nearest = min(points, key=lambda point: abs(point.bytes - candidate.bytes))
        besides = nearest.figures[limit] - nearest.bytes
        return candidate.bytes + besides * (candidate.layers / nearest.layers if limit == "file_size" else 1.0)
    points.sort(key=lambda point: abs(point.multiply_adds - candidate.multiply_adds))
    first = points[0]
    others = [point for point in points[1:] if point.multiply_adds != first.multiply_adds]
    if others:
        rise = first.figures[limit] - others[0].figures[limit]
        slope = rise / (first.multiply_adds - others[0].multiply_adds)
        if slope > 0:
            return max(0.0, first.figures[limit] + slope * (candidate.multiply_adds - first.multiply_adds))
    return first.figures[limit] * candidate.multiply_adds / max(1, first.multiply_adds)


@dataclass(frozen=True)
class Choice:
    """A candidate with what is expected of it.

    Attributes:
        runtime: of the file that is nearest to the limits or furthest below them.
        figures: limit -> figure that is expected.
        ratio: the largest figure / limit among the costs; 0 without a limit of a cost.
        fits: whether all limits should be met.
    """

    candidate: Candidate
    runtime: Runtime
    figures: Mapping[str, float]
    ratio: float
    loss: float
    fits: bool


def expectation(
    candidate: Candidate,
    limits: Mapping[str, float],
    knowledge: Knowledge,
    runtimes: Sequence[Runtime],
    margin: float = 0.0,
) -> Choice:
    """What is expected of one candidate. Costs must stay `margin` below their limits unless they are measured.

    The quality counts once it was measured what the expected changes of decisions mean for it, or where it is all that
    is limited.
    """
    costs = {name: limit for name, limit in limits.items() if name != QUALITY}
    outcomes: list[tuple[float, Runtime, dict[str, float]]] = []
    for runtime in runtimes:
        figures = {name: predicted(candidate, runtime, name, knowledge) for name in costs}
        outcomes.append((max((figures[name] / costs[name] for name in costs), default=0.0), runtime, figures))
    ratio, runtime, figures = min(outcomes, key=lambda outcome: outcome[0])
    allowed = 1.0 if knowledge.is_measured(candidate, (runtime,)) else 1.0 - margin
    fits = ratio <= allowed
    if QUALITY in limits:
        drop = knowledge.drop(candidate)
        figures[QUALITY] = drop
        if not costs or knowledge.drop_scale is not None:
            fits = fits and drop <= limits[QUALITY] * (1.0 - margin)
    return Choice(candidate, runtime, figures, ratio, knowledge.loss(candidate), fits)


def ranked(
    candidates: Sequence[Candidate],
    limits: Mapping[str, float],
    knowledge: Knowledge,
    runtimes: Sequence[Runtime],
    margin: float = 0.0,
    without: Collection[str] = (),
) -> list[Choice]:
    """The candidates, best first: those that should fit, the least loss first, then the others, the nearest first.

    Where only the quality is limited, the fewest bytes come first among those that should fit.

    Args:
        without: names of candidates that are out.
    """
    only_quality = set(limits) == {QUALITY}

    def order(choice: Choice) -> tuple[float, ...]:
        candidate = choice.candidate
        if choice.fits:
            return 0, *((candidate.bytes, choice.loss) if only_quality else (choice.loss, choice.ratio))
        excess = choice.ratio
        if only_quality or knowledge.drop_scale is not None:  # before, what is expected of the quality is a guess
            excess = max(excess, _over(choice.figures.get(QUALITY, 0.0), limits.get(QUALITY)))
        return 1, excess, choice.loss

    left = [one for one in candidates if one.name not in without]
    choices = [expectation(one, limits, knowledge, runtimes, margin) for one in left]
    return sorted(choices, key=lambda choice: (*order(choice), choice.candidate.name))


def _over(figure: float, limit: float | None) -> float:
    if limit is None:
        return 0.0
    return figure / limit if limit > 0 else (math.inf if figure > 0 else 0.0)


def corrections(expected: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
    """Limit -> measured / expected, of the costs where both are there."""
    return {
        name: measured[name] / figure
        for name, figure in expected.items()
        if name != QUALITY and figure > 0 and name in measured and math.isfinite(measured[name])
    }


def learned(knowledge: Knowledge, candidate: Candidate, loss: float, drop: float, trained: bool) -> Knowledge:
    """With what the built candidate tells about recovery.

    Args:
        loss: distance of the recovered network from its parent, without rounding.
        drop: of the quality of its file.
        trained: whether there was a recovery.
    """
    left = knowledge.share_left
    if trained and candidate.changed_loss > 0:
        left = min(LARGEST_SHARE, max(0.0, loss / candidate.changed_loss))
    after = Knowledge(knowledge.points, left)
    expected = after.drop(candidate)
    scale = max(drop, 0.0) / expected if expected > 0 else None
    return Knowledge(knowledge.points, left, scale if scale else knowledge.drop_scale)


def between(shares: Mapping[str, float], chosen: Choice, choices: Sequence[Choice]) -> tuple[str, str] | None:
    """Names of two structures between which a milder one than the chosen may still fit; None where there are none.

    Args:
        shares: structure -> share of the network that is kept, of one family that is ordered by it.
        choices: what is expected of all candidates.
    """
    own = chosen.candidate
    if not chosen.fits or own.structure not in shares:
        return None
    milder = [
        choice.candidate.structure
        for choice in choices
        if choice.candidate.precision == own.precision
        and not choice.fits
        and shares.get(choice.candidate.structure, 0.0) > shares[own.structure]
    ]
    if not milder:
        return None
    return own.structure, min(milder, key=lambda name: shares[name])


def best_of_each(choices: Sequence[Choice], count: int, built: Collection[str] = ()) -> Iterator[Choice]:
    """The first `count` choices, at most two for each structure, and those that were built: for a table."""
    shown: dict[str, int] = {}
    for choice in choices:
        structure, name = choice.candidate.structure, choice.candidate.name
        if name in built or (shown.get(structure, 0) < 2 and sum(shown.values()) < count):
            shown[structure] = shown.get(structure, 0) + 1
            yield choice
