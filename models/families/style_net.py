"""Style network: redraws a picture in one style with a single pass (Johnson et al. 2016, arXiv 1603.08155).

Differences from the paper's network, each for small phones and int8: batch normalisation as in the paper, not the
instance normalisation of later ones, since it folds into the convolutions and leaves nothing to quantise, while
instance normalisation takes means of each picture that no runtime here computes in int8; nearest-neighbour upsampling
and a convolution instead of transposed convolutions, which leave a checkerboard (Odena et al. 2016, Distill); the
network adds to its input, so that it starts as the unchanged picture; zeros at the edges.
"""

from typing import TYPE_CHECKING

from phonefit.models.errors import ModelError
from phonefit.models.spec import Architecture, ModelSpec, Preprocess

if TYPE_CHECKING:
    from torch import nn

CHANNELS = (32, 64, 128)
"""At full, half and quarter size."""
BLOCKS = 5
EDGE = 5  # kernel of the first and last convolution
STEP = 4  # height and width are halved twice


def _build(architecture: Architecture) -> "nn.Module":
    from torch import nn

    from phonefit.models.families.blocks import ConvNorm, Residual, round_channels, scale_blocks
    from phonefit.models.families.redraw import Redraw

    size = (architecture.height, architecture.width_pixels)
    if architecture.outputs != 3 * size[0] * size[1]:
        raise ModelError(
            f"style_net gives a picture of 3x{size[0]}x{size[1]} values, not {architecture.outputs} outputs: it is for "
            "task style"
        )
    if any(pixels % STEP for pixels in size):
        raise ModelError(f"style_net takes heights and widths that are multiples of {STEP}, got {size[0]}x{size[1]}")
    full, half, quarter = (round_channels(count * architecture.width) for count in CHANNELS)
    blocks = [
        Residual(
            nn.Sequential(ConvNorm(quarter, quarter, 3), ConvNorm(quarter, quarter, 3, activation=None)), nn.Identity()
        )
        for _ in range(scale_blocks(BLOCKS, architecture.depth))
    ]
    features = nn.Sequential(
        ConvNorm(3, full, EDGE),
        ConvNorm(full, half, 3, 2),
        ConvNorm(half, quarter, 3, 2),
        *blocks,
        nn.Upsample(scale_factor=2),
        ConvNorm(quarter, half, 3),
        nn.Upsample(scale_factor=2),
        ConvNorm(half, full, 3),
    )
    return Redraw(features, nn.Conv2d(full, 3, EDGE, padding=EDGE // 2))


SPEC = ModelSpec(
    name="style_net",
    summary="style transfer: residual blocks, a picture in and a picture out; 256 px",
    build=_build,
    preprocess=Preprocess(height=256, width=256, crop_share=1.0, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
    minimum_size=16,
    parameters=1.67,
)
