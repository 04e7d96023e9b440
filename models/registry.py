"""Model families by name, and building a network from its description."""

from typing import TYPE_CHECKING

from phonefit.models.errors import ModelError, UnknownNameError, first_line
from phonefit.models.factories import imported
from phonefit.models.families import efficientnet_lite, face_age, face_resnet, mobilenet_v2, resnet, style_net, vgg
from phonefit.models.spec import Architecture, ModelSpec

if TYPE_CHECKING:
    from torch import nn

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        *efficientnet_lite.SPECS,
        mobilenet_v2.SPEC,
        *resnet.SPECS,
        *vgg.SPECS,
        style_net.SPEC,
        face_resnet.SPEC,
        face_age.SPEC,
    )
}


def model_spec(name: str) -> ModelSpec:
    """The registered model of that name.

    Raises:
        UnknownNameError: with the names that exist.
    """
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    return MODELS[name]


def build_network(architecture: Architecture) -> "nn.Module":
    """Build the untrained network.

    Raises:
        ModelError: the input is too small, or a person's factory cannot be imported or fails.
    """
    if architecture.factory is not None:
        return _call_factory(architecture.factory, architecture)
    assert architecture.family is not None  # the Architecture's own check
    spec = model_spec(architecture.family)
    smallest = min(architecture.height, architecture.width_pixels)
    if smallest < spec.minimum_size:
        raise ModelError(
            f"{spec.name} takes inputs of at least {spec.minimum_size} pixels, "
            f"got {architecture.height}x{architecture.width_pixels}; raise the input size"
        )
    network = spec.build(architecture)
    if architecture.detector is None:
        return network
    from phonefit.models.boxes import SIDES, points_of
    from phonefit.models.families.detector import detector

    size = (architecture.height, architecture.width_pixels)
    each, left = divmod(architecture.outputs, len(points_of(*size, architecture.detector.strides)))
    if left or each <= SIDES:
        raise ModelError(f"{architecture.outputs} outputs are no boxes and scores of a detector for {size} pixels")
    return detector(network.get_submodule("features"), size, each - SIDES, architecture.detector)


def check_network(network: "nn.Module", architecture: Architecture) -> None:
    """Run one blank picture through the network, so that a wrong size shows before any training.

    The network is left in eval mode.

    Raises:
        ModelError: the input size cannot be taken, or the output is not float [1, outputs].
    """
    import torch

    name = architecture.family or architecture.factory
    size = f"{architecture.height}x{architecture.width_pixels}"
    device = next((parameter.device for parameter in network.parameters()), None)
    picture = torch.zeros(1, 3, architecture.height, architecture.width_pixels, device=device)
    try:
        with torch.no_grad():
            outputs = network.eval()(picture)
    except Exception as error:
        raise ModelError(
            f"{name} cannot take inputs of {size} pixels: {first_line(error)}; change data.input or the model"
        ) from error
    if not isinstance(outputs, torch.Tensor) or not outputs.is_floating_point():
        raise ModelError(f"{name} returned a {type(outputs).__name__}, expected one tensor of floats")
    if tuple(outputs.shape) != (1, architecture.outputs):
        raise ModelError(
            f"{name} gives {list(outputs.shape)} for one picture of {size} pixels, expected "
            f"[1, {architecture.outputs}]: one row a picture, one column an output"
        )


def _call_factory(factory: str, architecture: Architecture) -> "nn.Module":
    from torch import nn

    function = imported(factory)
    try:
        network = function(outputs=architecture.outputs, **architecture.arguments)
    except Exception as error:
        raise ModelError(
            f"factory {factory!r} failed with outputs={architecture.outputs} and {dict(architecture.arguments)}: "
            f"{first_line(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"factory {factory!r} returned a {type(network).__name__}, expected a torch.nn.Module")
    return network
