"""What the page of errors shows of an embedding: the ROC curve, and the pairs that are told wrongly."""

from typing import TYPE_CHECKING

import numpy as np

from phonefit.models.decoding import EmbeddingDecoding
from phonefit.models.targets import Targets
from phonefit.models.tasks.task import Floats
from phonefit.models.tasks.verification import accuracy, cosines, pairs_of, rates, wrong_by

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def roc_figure(outputs: Floats, targets: Targets, decoding: EmbeddingDecoding) -> "Figure":
    """True over false accepts of pairs, with the file's threshold marked."""
    from plotly.graph_objects import Figure, Scatter

    pairs = pairs_of(targets)
    values = cosines(outputs, pairs)
    false, true = rates(values, pairs.same)
    accepted = values >= decoding.threshold
    figure = Figure(Scatter(x=false, y=true, mode="lines", name="all thresholds"))
    at = [float(accepted[rows].mean()) for rows in (~pairs.same, pairs.same)]
    name = f"threshold {decoding.threshold:.3f}, accuracy {accuracy(values, pairs.same, decoding.threshold):.1%}"
    figure.add_trace(Scatter(x=at[:1], y=at[1:], mode="markers", name=name))
    figure.update_layout(xaxis_title="false accepts", xaxis_type="log", yaxis_title="true accepts")
    return figure


def worst_pairs(
    outputs: Floats, targets: Targets, decoding: EmbeddingDecoding, most: int
) -> list[tuple[int, int, str]]:
    """Rows of two pictures and what was told of them, worst first; half of them of each kind where there are so many.

    A picture is in one pair only, the worst: a single bad one would fill the page.
    """
    pairs = pairs_of(targets)
    values = cosines(outputs, pairs)
    beyond = wrong_by(values, pairs.same, decoding.threshold)
    found: list[tuple[float, int, int, str]] = []
    for kind, told in ((True, "told different, is the same"), (False, "told the same, is different")):
        rows = np.flatnonzero((pairs.same == kind) & (beyond > 0))
        seen: set[int] = set()
        for row in rows[np.argsort(-beyond[rows], kind="stable")].tolist():
            first, second = int(pairs.first[row]), int(pairs.second[row])
            if not seen & {first, second}:
                seen |= {first, second}
                found.append((float(beyond[row]), first, second, f"cosine {values[row]:.2f}: {told}"))
            if len(seen) >= most:  # two for each pair
                break
    return [(first, second, told) for _, first, second, told in sorted(found, reverse=True)]
