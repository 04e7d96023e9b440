"""Layers by dotted name, as a person names them in `keep` and `float_layers`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

SHOWN = 40  # names in an error


def in_layers(name: str, layers: Iterable[str]) -> bool:
    """Whether a dotted name is one of `layers` or lies inside one."""
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


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
