"""Model families by name, and building a network from its description."""

import importlib
from typing import TYPE_CHECKING

from phonefit.models.errors import ModelError, UnknownNameError
from phonefit.models.families import efficientnet_lite, mobilenet_v2, resnet, vgg
from phonefit.models.spec import Architecture, ModelSpec

if TYPE_CHECKING:
    from torch import nn

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (*efficientnet_lite.SPECS, mobilenet_v2.SPEC, *resnet.SPECS, *vgg.SPECS)
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
    return spec.build(architecture)


def _call_factory(factory: str, architecture: Architecture) -> "nn.Module":
    from torch import nn

    module_name, _, function_name = factory.partition(":")
    if not module_name or not function_name:
        raise ModelError(f"factory {factory!r} is not of the form package.module:function")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"factory {factory!r} cannot be imported: {error}; run from the folder that holds {module_name.split('.')[0]}, "
            "or put it on PYTHONPATH"
        ) from error
    try:
        network = function(outputs=architecture.outputs, **architecture.arguments)
    except Exception as error:  # a person's code may raise anything
        raise ModelError(
            f"factory {factory!r} failed with outputs={architecture.outputs} and {dict(architecture.arguments)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"factory {factory!r} returned a {type(network).__name__}, expected a torch.nn.Module")
    return network
