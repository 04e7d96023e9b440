"""Non-maximum suppression as a part of an .onnx file. Imports torch."""

import torch
from torch import Tensor, nn

from phonefit.models.decoding import DetectionDecoding


class Suppression(nn.Module):
    """Sets the scores of what is suppressed to 0. The outputs keep their shapes: the file is read as any other.

    ONNX's operator (https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html), which torch has none of: it is put in
    by name, and computes nothing in PyTorch.
    """

    def __init__(self, decoding: DetectionDecoding) -> None:
        super().__init__()
        self.decoding = decoding

    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Boxes [1, P, 4] and scores [1, P, labels] -> scores [1, P, labels]."""
        by_label = scores.transpose(1, 2).contiguous()
        every = by_label.numel()
        limits = (
            torch.tensor([scores.shape[1]]),
            torch.tensor([self.decoding.iou_threshold], dtype=torch.float32),
            torch.tensor([self.decoding.score_threshold], dtype=torch.float32),
        )
        # batch, label, row of each that stays; how many these are shows only when it is run
        kept = _operator("NonMaxSuppression", (boxes, by_label, *limits), torch.int64, (every, 3), center_point_box=1)
        values = _operator("GatherND", (by_label, kept), torch.float32, (every,))
        nothing = torch.zeros_like(by_label)
        left = _operator("ScatterND", (nothing, kept, values), torch.float32, tuple(by_label.shape))
        return left.transpose(1, 2)


def _operator(
    name: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, shape: tuple[int, ...], **attributes: int
) -> Tensor:
    return torch.onnx.ops.symbolic(name, inputs, {**attributes}, dtype=dtype, shape=shape)
