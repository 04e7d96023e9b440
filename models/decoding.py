"""How the outputs of a model file are read: a record for each kind of task, part of every artifact.

`models/decode.py` does it in Python, the Android app in Kotlin; both are held against the same vectors.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from phonefit.models.record import Frozen

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ClassificationDecoding(Frozen):
    """One label of several. Output: logits float32 [labels]."""

    kind: Literal["classification"] = "classification"


class RegressionDecoding(Frozen):
    """A number, such as an age: scale * value + offset, within minimum..maximum.

    Attributes:
        reads: what the value is. "output": the output float32 [1]. "expected_index": the mean of the places
            0, 1, … of the output's values, each with its softmax as weight; output: logits float32 [bins].
            "expected_count": the sum of the sigmoids of the output's values; output: logits float32 [steps].
    """

    kind: Literal["regression"] = "regression"
    reads: Literal["output", "expected_index", "expected_count"] = "output"
    scale: float = 1.0
    offset: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""

    @model_validator(mode="after")
    def _limits_are_ordered(self) -> "RegressionDecoding":
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class MultiLabelDecoding(Frozen):
    """Any number of labels: those whose probability reaches their threshold. Output: logits float32 [labels].

    Attributes:
        thresholds: one for each label.
    """

    kind: Literal["multi_label"] = "multi_label"
    thresholds: tuple[Share, ...]


class DetectionDecoding(Frozen):
    """Boxes with labels. Outputs: boxes float32 [N, 4] as centre x, centre y, width, height in pixels of the input, and
    scores float32 [N, labels] in 0..1.

    Attributes:
        boxes, scores: which of the artifact's outputs they are.
        score_threshold: what scores less is no detection.
        iou_threshold: of two boxes of a label that overlap more than this, the lower score goes.
        most: detections that are kept at most.
    """

    kind: Literal["detection"] = "detection"
    boxes: int = Field(default=0, ge=0)
    scores: int = Field(default=1, ge=0)
    score_threshold: Share = 0.25
    iou_threshold: Share = 0.45
    most: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _outputs_differ(self) -> "DetectionDecoding":
        if self.boxes == self.scores:
            raise ValueError(f"boxes and scores are both output {self.boxes}")
        return self


class EmbeddingDecoding(Frozen):
    """A vector of unit length. Two pictures show the same when their cosine reaches `threshold`.

    Output: float32 [D].
    """

    kind: Literal["embedding"] = "embedding"
    threshold: float = Field(default=0.5, ge=-1.0, le=1.0)


class StyleDecoding(Frozen):
    """A picture: each channel is scale * output + offset, rounded (half to even) and held in 0..255.

    Output: float32 [3, height, width] or [height, width, 3], as its TensorSpec says.
    """

    kind: Literal["style"] = "style"
    scale: float = 255.0
    offset: float = 0.0


Decoding = Annotated[
    ClassificationDecoding
    | RegressionDecoding
    | MultiLabelDecoding
    | DetectionDecoding
    | EmbeddingDecoding
    | StyleDecoding,
    Field(discriminator="kind"),
]
