"""Average precision of boxes, by COCO's own evaluation: pycocotools, https://github.com/ppwwyyxx/cocoapi."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phonefit.models.targets import Targets
from phonefit.models.tasks.task import Floats

EVERY_SIZE = [[0.0, 1e10]]
HALF = 0.5  # the first of the overlaps that count
RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads a curve of precision."""


@dataclass(frozen=True)
class Precisions:
    """What was found of each picture, matched with what is there."""

    evaluation: Any  # COCOeval, whose evalImgs hold the matches: labels, then pictures

    def of(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Average precision for overlaps of 0.5, 0.55, … 0.95 and each label, float64 [10, labels]; see `curves`."""
        means: NDArray[np.float64] = self.curves(rows).mean(axis=1)
        return means

    def curves(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Precision for each of these overlaps, each of `RECALLS` and each label, float64 [10, 101, labels]; NaN for a
        label without a box.

        Args:
            rows: the pictures that count, each as often as it is named; None: all.
        """
        from pycocotools.cocoeval import COCOeval

        every, count = self.evaluation, len(self.evaluation.params.imgIds)
        chosen = COCOeval(iouType="bbox")
        chosen.params, chosen._paramsEval = every.params, every._paramsEval
        rows = np.arange(count) if rows is None else rows
        labels = range(len(every.params.catIds))
        chosen.evalImgs = [every.evalImgs[label * count + row] for label in labels for row in rows]
        with contextlib.redirect_stdout(io.StringIO()):
            chosen.accumulate()
        curves = chosen.eval["precision"][:, :, :, 0, -1]  # of every size, with as many boxes as there are
        return np.where(curves < 0, np.nan, curves)

    def best_threshold(self) -> float | None:
        """The score from which told boxes have the best F1 at an overlap of `HALF`, all labels together.

        Half-way to the next score below, so that a score that is rounded differently stays on its side. Of equal ones
        the highest. None where nothing is told or nothing is there.
        """
        known = [found for found in self.evaluation.evalImgs if found is not None]
        scores = np.concatenate([[], *(found["dtScores"] for found in known)])
        real = sum(len(found["gtIds"]) for found in known)
        if not len(scores) or not real:
            return None
        order = np.argsort(-scores, kind="stable")
        right = np.concatenate([found["dtMatches"][0] > 0 for found in known])[order].cumsum()
        scores = scores[order]
        below = np.append(scores[1:], 0.0)
        quality = 2 * right / (np.arange(1, len(scores) + 1) + real)
        quality[scores == below] = -1  # equal scores are told together
        best = int(quality.argmax())
        return float((scores[best] + below[best]) / 2)


def precisions_of(told: Floats, targets: Targets, labels: Sequence[str]) -> Precisions:
    """Match what is told with what is there.

    Args:
        told: float32 [N, K, 6]: label, corners, score; rows of -1 are padding.
        targets: float32 [N, M, 5]: label and corners; rows of -1 are padding.
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it reports what it does
        evaluation = COCOeval(_index(targets, labels), _index(told, labels), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = EVERY_SIZE, ["all"]
        evaluation.params.maxDets = [max(1, told.shape[1])]
        evaluation.evaluate()
    return Precisions(evaluation)


def _index(boxes: Targets, labels: Sequence[str]) -> Any:
    """COCO's index of these boxes."""
    from pycocotools.coco import COCO

    annotations: list[dict[str, object]] = []
    for picture, rows in enumerate(boxes):
        for label, left, top, right, bottom, *score in rows[rows[:, 0] >= 0].tolist():
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 would be read as "no match"
                    "image_id": picture,
                    "category_id": int(label),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    **({"score": score[0]} if score else {}),
                }
            )
    index = COCO()
    index.dataset = {
        "images": [{"id": picture} for picture in range(len(boxes))],
        "categories": [{"id": label} for label in range(len(labels))],
        "annotations": annotations,
    }
    index.createIndex()
    return index
