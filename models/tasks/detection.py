"""Detection: boxes with labels."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from phonefit.models.boxes import SIDES, corners_of, found, overlaps, points_of
from phonefit.models.decoding import Decoding, DetectionDecoding
from phonefit.models.errors import DataError, ModelError
from phonefit.models.spec import DetectorOptions, Preprocess
from phonefit.models.targets import Targets
from phonefit.models.tasks.average_precision import HALF, Precisions, precisions_of
from phonefit.models.tasks.options import DetectionOptions
from phonefit.models.tasks.resampling import bootstrap_interval
from phonefit.models.tasks.task import Floats, Metrics, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

DEFAULT = DetectionOptions()

LEAST_SCORE = 0.01
"""Of what counts for the average precision, which looks at every threshold above it."""
SAME_BOX = HALF  # intersection over union from which a box is found
SAME_TO_A_PERSON = 0.75  # and from which two files tell the same
SAME_SCORE = 0.1


@dataclass(frozen=True)
class Detection(Task):
    """Boxes with labels. Outputs: boxes [P, 4] as centre x, centre y, width, height in pixels of the input, then scores
    [P, labels] in 0..1, flattened and joined; P as `points_of` says. Targets: float32 [N, M, 5], label and corners in
    pixels of the input, padded with rows of -1.

    The quality is COCO's own, the mean average precision over overlaps of 50 to 95 %: it falls when int8 makes boxes
    coarse, which that at 50 % hides.

    Attributes:
        labels, size: names, and height and width of the input, once it is fitted.
        threshold: score from which a box is told where the options say none; None until it is chosen.
    """

    options: DetectionOptions = DEFAULT
    labels: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    threshold: float | None = None

    name = "detection"
    target = "boxes"
    quality = "mean_average_precision"

    @property
    def decoding(self) -> DetectionDecoding:
        """Thresholds of the options, and that which is chosen."""
        options = self.options
        record = DetectionDecoding(iou_threshold=options.iou_threshold, most=options.most)
        score = self.threshold if options.score_threshold is None else options.score_threshold
        return record if score is None else record.model_copy(update={"score_threshold": score})

    @property
    def detector(self) -> DetectorOptions:
        """That of the options."""
        return DetectorOptions(channels=self.options.channels, strides=self.options.strides)

    def fitted(self, labels: Sequence[str], targets: Targets, preprocess: Preprocess) -> Self:
        """With the labels' names and the input's size."""
        if not (targets[..., 0] >= 0).any():
            raise DataError("no picture of the training side has a box; there is nothing to learn")
        return replace(self, labels=tuple(labels), size=(preprocess.height, preprocess.width))

    def calibrated(self, outputs: Floats, targets: Targets) -> Self:
        """With the score threshold of the best F1 at an overlap of `SAME_BOX`, unless the options say one."""
        if self.options.score_threshold is not None:
            return self
        return replace(self, threshold=self._precisions(outputs, targets).best_threshold())

    def read_by(self, decoding: Decoding) -> Self:
        """With the record's thresholds."""
        assert isinstance(decoding, DetectionDecoding)
        read: dict[str, float] = {"iou_threshold": decoding.iou_threshold, "most": decoding.most}
        if self.options.score_threshold is not None:
            read["score_threshold"] = decoding.score_threshold
        return replace(self, options=self.options.model_copy(update=read), threshold=decoding.score_threshold)

    def outputs(self, labels: Sequence[str], preprocess: Preprocess) -> int:
        """Four numbers and a score for each label, of each point."""
        points = points_of(preprocess.height, preprocess.width, self.options.strides)
        return max(len(points), 1) * (SIDES + len(labels))

    def exported(self, network: "nn.Module", preprocess: Preprocess) -> "nn.Module":
        """Boxes [1, P, 4] and scores [1, P, labels] as outputs of their own.

        Raises:
            ModelError: a network of one's own does not end in `BoxDecoding`.
        """
        from phonefit.models.families.detector import BoxDecoding
        from phonefit.models.tasks.suppression import Suppression

        shipped = copy.deepcopy(network)
        decode = getattr(shipped, "decode", None)
        if not isinstance(decode, BoxDecoding):
            raise ModelError(
                f"a {type(network).__name__} is no detector; build yours with `detector` of "
                "phonefit.models.families.detector"
            )
        decode.joined = False
        if self.options.nms == "inside":
            decode.suppression = Suppression(self._every)
        return shipped

    def as_exported(self, outputs: Floats) -> Floats:
        """With `nms: inside` the scores of what is suppressed are 0."""
        if self.options.nms == "outside":
            return outputs
        boxes, scores = self.parts(outputs)
        kept = np.zeros_like(scores)
        for picture, (some, of) in enumerate(zip(boxes, scores, strict=True)):
            for score, label, row in self._found(some, of, self._every.model_copy(update={"most": of.size})):
                kept[picture, row, label] = score
        return np.concatenate([boxes.reshape(len(boxes), -1), kept.reshape(len(boxes), -1)], axis=1)

    def loss(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """See `detection_loss`; weights of labels mean nothing here."""
        from phonefit.models.tasks.detection_loss import detection_loss

        return detection_loss(*self._tensors(outputs), targets, self.points())

    def distillation_loss(self, student: "Tensor", teacher: "Tensor", temperature: float) -> "Tensor":
        """See `detection_distance`, which knows no temperature."""
        from phonefit.models.tasks.detection_loss import detection_distance

        return detection_distance(*self._tensors(student), *self._tensors(teacher))

    def augmented(self, pixels: "Tensor", targets: "Tensor", generator: "torch.Generator") -> "tuple[Tensor, Tensor]":
        """Mosaic and colours, as the options say."""
        from phonefit.models.tasks.mosaic import coloured, mosaic

        pixels, targets = mosaic(pixels, targets, self.options.mosaic, generator)
        return coloured(pixels, self.options.colour, generator), targets

    def moved(self, targets: "Tensor", flips: "Tensor", shifts: "Tensor") -> "Tensor":
        """Boxes where flips and shifts have put what they are around."""
        from phonefit.models.tasks.mosaic import moved_boxes

        return moved_boxes(targets, flips, shifts, self.size)

    def metrics(self, outputs: Floats, targets: Targets) -> Metrics:
        """Mean average precision over overlaps and at 50 %, and that of each label at 50 %."""
        return self._metrics(self._precisions(outputs, targets).of())

    def interval(self, outputs: Floats, targets: Targets) -> tuple[float, float]:
        """Of the mean average precision, by the bootstrap over pictures, of few resamples: each takes some 10 ms."""
        precisions = self._precisions(outputs, targets)
        return bootstrap_interval(lambda rows: float(np.nanmean(precisions.of(rows))), len(targets), resamples=100)

    def baseline(self, train: Targets, targets: Targets) -> tuple[str, Metrics]:
        """For each label the mean box of the training side, with the label's share as its score."""
        boxes = train.reshape(-1, 1 + SIDES)
        boxes = boxes[boxes[:, 0] >= 0]
        told = []
        for label in range(len(self.labels)):
            own = boxes[boxes[:, 0] == label, 1:]
            if len(own):
                told.append((label, *own.mean(axis=0), len(own) / len(boxes)))
        constant = np.array([told] * len(targets), dtype=np.float32)
        return "each label's mean box in every picture", self._metrics(
            precisions_of(constant, targets, self.labels).of()
        )

    def decode(self, outputs: Floats) -> Floats:
        """What is found, as a person is told it: float32 [N, most, 6], label, corners and score; padded with -1."""
        return self._told(outputs, self.decoding)

    def everything(self, outputs: Floats) -> Floats:
        """The same from `LEAST_SCORE` on, for what looks at all thresholds."""
        return self._told(outputs, self._every)

    def _told(self, outputs: Floats, decoding: DetectionDecoding) -> Floats:
        rows = np.full((len(outputs), decoding.most, 2 + SIDES), -1, dtype=np.float32)
        for picture, (boxes, scores) in enumerate(zip(*self.parts(outputs), strict=True)):
            corners = corners_of(boxes.astype(np.float64)).clip(0, (*self.size[::-1], *self.size[::-1]))
            for place, (score, label, row) in enumerate(self._found(boxes, scores, decoding)):
                rows[picture, place] = (label, *corners[row], score)
        return rows

    def agree(self, outputs: Floats, others: Floats) -> NDArray[np.bool_]:
        """Whether each finds what the other tells: the same label in nearly the same box, with a score of at most
        `SAME_SCORE` below the threshold, as a box right at it is told by one and not by the other.
        """
        least = max(self.decoding.score_threshold - SAME_SCORE, LEAST_SCORE)
        nearly = self.decoding.model_copy(update={"score_threshold": least})
        told, known = ([self._told(given, record) for given in (outputs, others)] for record in (self.decoding, nearly))
        lost = [
            sum(_missed(_present(wanted), _present(given), SAME_TO_A_PERSON) for wanted, given in pairs)
            for pairs in zip(zip(told[0], known[1], strict=True), zip(told[1], known[0], strict=True), strict=True)
        ]
        rows: NDArray[np.bool_] = np.array(lost) == 0
        return rows

    def mistakes(self, outputs: Floats, targets: Targets) -> Floats:
        """Number of boxes that are missed and of those that are told where there is none."""
        wrong = []
        for told, true in zip(self.decode(outputs), targets, strict=True):
            present, real = _present(told), _present(true)
            missed = _missed(real, present, SAME_BOX)
            wrong.append(missed + len(present) - (len(real) - missed))
        return np.array(wrong, dtype=np.float32)

    def parts(self, outputs: Floats) -> tuple[Floats, Floats]:
        """Boxes [N, P, 4] and scores [N, P, labels] of joined outputs."""
        count = outputs.shape[1] // (SIDES + len(self.labels))
        boxes, scores = outputs[:, : SIDES * count], outputs[:, SIDES * count :]
        return boxes.reshape(-1, count, SIDES), scores.reshape(-1, count, len(self.labels))

    def points(self) -> Floats:
        """See `points_of`."""
        return points_of(*self.size, self.options.strides)

    @property
    def _every(self) -> DetectionDecoding:
        """The decoding for what looks at all thresholds."""
        return self.decoding.model_copy(update={"score_threshold": LEAST_SCORE})

    def _tensors(self, outputs: "Tensor") -> "tuple[Tensor, Tensor]":
        count = outputs.shape[1] // (SIDES + len(self.labels))
        boxes, scores = outputs[:, : SIDES * count], outputs[:, SIDES * count :]
        return boxes.reshape(-1, count, SIDES), scores.reshape(-1, count, len(self.labels))

    def _found(self, boxes: Floats, scores: Floats, decoding: DetectionDecoding) -> list[tuple[float, int, int]]:
        return found(corners_of(boxes.astype(np.float64)), scores.astype(np.float64), decoding)

    def _precisions(self, outputs: Floats, targets: Targets) -> Precisions:
        return precisions_of(self.everything(outputs), targets, self.labels)

    def _metrics(self, precisions: NDArray[np.float64]) -> Metrics:
        halves = precisions[0]
        named = {
            f"average_precision_50/{label}": float(value)
            for label, value in zip(self.labels, halves, strict=True)
            if not np.isnan(value)
        }
        return {
            "mean_average_precision": float(np.nanmean(precisions)),
            "mean_average_precision_50": float(np.nanmean(halves)),
            **named,
        }


def _present(rows: Floats) -> Floats:
    return rows[rows[:, 0] >= 0]


def _missed(wanted: Floats, told: Floats, least: float) -> int:
    """How many of the wanted boxes are not told, each of which may be told once; both [A, 5 or more]."""
    shared = overlaps(wanted[:, 1:5].astype(np.float64), told[:, 1:5].astype(np.float64))
    shared[wanted[:, :1] != told[None, :, 0]] = 0
    missed = 0
    for row in shared:
        best = int(row.argmax()) if row.size else -1
        if best < 0 or row[best] < least:
            missed += 1
        else:
            shared[:, best] = 0
    return missed
