"""Verification: are two pictures of the same person or thing? Figures over pairs of embeddings.

Same and different pairs have the same say, however many there are of each, as in the protocol of Labeled Faces in the
Wild (Huang et al. 2007), so that chance is one half.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phonefit.models.errors import DataError
from phonefit.models.targets import Targets
from phonefit.models.tasks.resampling import bootstrap_interval
from phonefit.models.tasks.task import Floats

Doubles = NDArray[np.float64]

MOST = 200_000
"""Pairs of each kind, same and different, at most; from more a seeded sample is drawn."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, each pair once.

    Attributes:
        first, second: rows, int64 [P].
        same: whether both are of one identity, bool [P].
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


def unit_rows(outputs: Floats) -> Doubles:
    """Each row with length 1; rows of zeros stay so: float64 [N, D]."""
    rows = outputs.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def pairs_of(identities: Targets) -> Pairs:
    """All pairs of rows, or of each kind `MOST` by a fixed seed.

    Raises:
        DataError: there is no pair of one identity, or none of two.
    """
    count, random = len(identities), np.random.default_rng(0)
    members = [np.flatnonzero(identities == identity) for identity in np.unique(identities)]
    alike = [np.stack(np.triu_indices(len(rows), 1)) for rows in members]
    same = np.concatenate([rows[places] for rows, places in zip(members, alike, strict=True)], axis=1)
    if same.shape[1] > MOST:
        same = same[:, np.sort(random.permutation(same.shape[1])[:MOST])]
    if count * (count - 1) // 2 <= MOST:
        different = np.stack(np.triu_indices(count, 1))
    else:
        different = np.unique(np.sort(random.integers(count, size=(2, MOST)), axis=0), axis=1)
    different = different[:, identities[different[0]] != identities[different[1]]]
    if not same.shape[1] or not different.shape[1]:
        missing = "two identities" if same.shape[1] else "one identity"
        raise DataError(
            f"among these {count} pictures of {len(members)} identities no two are of {missing}, so nothing can be "
            "verified; give two pictures or more of each identity, and split by class (data.split.by) with larger "
            "shares, or more identities"
        )
    joined = np.concatenate([same, different], axis=1)
    return Pairs(joined[0], joined[1], np.arange(joined.shape[1]) < same.shape[1])


def cosines(outputs: Floats, pairs: Pairs) -> Doubles:
    """Cosine of each pair's embeddings, of outputs float32 [N, D]: float64 [P]."""
    rows, parts = unit_rows(outputs), []
    for start in range(0, len(pairs.first), 65_536):  # all at once would take gigabytes
        part = slice(start, start + 65_536)
        parts.append(np.einsum("pd,pd->p", rows[pairs.first[part]], rows[pairs.second[part]]))
    values: Doubles = np.clip(np.concatenate(parts), -1.0, 1.0)
    return values


def accuracy(values: Doubles, same: NDArray[np.bool_], threshold: float) -> float:
    """Mean of the shares of same and of different pairs that are told right, of cosines [P]."""
    accepted = values >= threshold
    return float(accepted[same].mean() + (~accepted[~same]).mean()) / 2


def best_threshold(values: Doubles, same: NDArray[np.bool_]) -> float:
    """The threshold of the highest accuracy, halfway between two neighbouring cosines of [P]."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    weights = np.where(same[order], -0.5 / same.sum(), 0.5 / (~same).sum())
    gained = np.concatenate([[0.5], 0.5 + np.cumsum(weights)])  # accuracy when the first so many are refused
    bounds = np.concatenate([[-1.0], (ordered[1:] + ordered[:-1]) / 2, [1.0]])
    apart = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])  # equal cosines are told alike
    return float(bounds[int(np.argmax(np.where(apart, gained, 0.0)))])


def accept_rate(values: Doubles, same: NDArray[np.bool_], false_accepts: float) -> float:
    """Share of the same pairs that are accepted at the lowest threshold with at most this share of false accepts."""
    different = np.sort(values[~same])[::-1]
    allowed = int(false_accepts * len(different))
    return float((values[same] > different[allowed]).mean())


def rates(values: Doubles, same: NDArray[np.bool_], points: int = 256) -> tuple[Doubles, Doubles]:
    """The ROC curve: rates of false and of true accepts, both rising, float64 [at most `points`]."""
    different = np.sort(values[~same])[::-1]
    counts = np.unique(np.geomspace(1, len(different), points).astype(np.int64))
    refused = np.searchsorted(np.sort(values[same]), different[counts - 1])
    return counts / len(different), 1 - refused / same.sum()


def wrong_by(values: Doubles, same: NDArray[np.bool_], threshold: float) -> Doubles:
    """How far each cosine of [P] is on the wrong side of the threshold; 0 on the right one."""
    return np.where((values >= threshold) == same, 0.0, np.abs(values - threshold) + 1e-6)


def accuracy_interval(outputs: Floats, identities: Targets, threshold: float) -> tuple[float, float]:
    """Interval of 95 % of the accuracy, by the bootstrap over identities: pairs that share one are not independent."""
    pairs = pairs_of(identities)
    told = (cosines(outputs, pairs) >= threshold) == pairs.same
    names, codes = np.unique(identities, return_inverse=True)
    cells, places = np.unique(codes[pairs.first] * len(names) + codes[pairs.second], return_inverse=True)
    one, other = np.divmod(cells, len(names))  # the identities of each kind of pair
    total, right = np.bincount(places), np.bincount(places, weights=told)

    def resampled(rows: NDArray[np.int64]) -> float:
        drawn = np.bincount(rows, minlength=len(names))
        weights = drawn[one] * np.where(one == other, 1, drawn[other])
        kinds = [kind for kind in (one == other, one != other) if weights[kind].any()]
        shares = [float((weights * right)[kind].sum() / (weights * total)[kind].sum()) for kind in kinds]
        return float(np.mean(shares)) if shares else 0.5

    return bootstrap_interval(resampled, len(names))
