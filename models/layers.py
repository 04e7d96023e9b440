"""Layers by dotted name, as a person names them in `keep` and `float_layers`."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

SHOWN = 40  # names in an error
IN_FLOAT = frozenset({"phonefit.models.families.detector.BoxDecoding"})
"""Classes of modules without weights that compute in float whatever is quantised, as torch.export names them."""


def in_layers(name: str, layers: Iterable[str]) -> bool:
    """Whether a dotted name is one of `layers` or lies inside one."""
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def stays_in_float(stack: Mapping[str, tuple[str, object]], layers: Iterable[str]) -> bool:
    """Whether an operator of an exported graph lies in one of `layers` or in a module of `IN_FLOAT`.

    Args:
        stack: of the modules around it, as torch.export has it in `nn_module_stack`: name and class of each.
    """
    layers = tuple(layers)
    return any(in_layers(name, layers) or str(kind) in IN_FLOAT for name, kind in stack.values())


def unknown_layers(network: "nn.Module", names: Iterable[str]) -> str | None:
    """What is wrong with names that must be those of modules; None when nothing is."""
    from torch import nn

    modules = {name: module for name, module in network.named_modules() if name}
    unknown = sorted(set(names) - set(modules))
    if not unknown:
        return None
    layers = [name for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear)]
    more = f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
    return (
        f"the model has no layer {', '.join(unknown)}; it has {', '.join(layers[:SHOWN])}{more}, "
        "and the blocks that hold them"
    )
