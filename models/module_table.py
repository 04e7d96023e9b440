"""The module table: how a checkpoint records leaf modules that pruning, decomposition or folding has changed.

A file never runs code: only the classes named in `CLASSES` can be rebuilt.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import JsonValue

from phonefit.models.errors import ModelError
from phonefit.models.record import Frozen

if TYPE_CHECKING:
    from torch import nn

# Class name -> constructor arguments that are recorded, each readable as an attribute of the instance.
CLASSES: dict[str, tuple[str, ...]] = {
    "Conv2d": (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
    ),
    "ConvTranspose2d": (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "groups", "dilation",
        "padding_mode",
    ),
    "Linear": ("in_features", "out_features"),
    "BatchNorm1d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "BatchNorm2d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "PReLU": ("num_parameters",),
    "Identity": (),
}  # fmt: skip
CONTAINER = "Sequential"
HAVE_BIAS = ("Conv2d", "ConvTranspose2d", "Linear")  # takes `bias`, a flag, and holds a tensor of that name


class ModuleEntry(Frozen):
    """One row: a class from the fixed list with its constructor arguments, or a Sequential of such rows."""

    class_name: str
    arguments: Mapping[str, JsonValue] = {}
    children: tuple["ModuleEntry", ...] = ()


def _is_recordable(module: "nn.Module") -> bool:
    """True for the classes of torch itself, not for a person's class of the same name."""
    from torch import nn

    name = type(module).__name__
    return (name in CLASSES or name == CONTAINER) and type(module) is getattr(nn, name)


def _describe(module: "nn.Module", path: str) -> ModuleEntry:
    name = type(module).__name__
    if not _is_recordable(module):
        raise ModelError(
            f"module {path} is a {name}, which a checkpoint cannot record; a changed layer must be one of torch.nn's "
            f"{', '.join([*CLASSES, CONTAINER])}"
        )
    if name == CONTAINER:
        named = list(module.named_children())
        if [key for key, _ in named] != [str(index) for index in range(len(named))]:
            raise ModelError(
                f"module {path} is a Sequential with names {[key for key, _ in named]}; make it without names"
            )
        return ModuleEntry(class_name=name, children=tuple(_describe(child, f"{path}.{key}") for key, child in named))
    arguments: dict[str, JsonValue] = {}
    for key in CLASSES[name]:
        value = getattr(module, key)
        arguments[key] = list(value) if isinstance(value, tuple) else value
    if name in HAVE_BIAS:
        arguments["bias"] = module.bias is not None
    return ModuleEntry(class_name=name, arguments=arguments)


def _build(entry: ModuleEntry) -> "nn.Module":
    from torch import nn

    if entry.class_name == CONTAINER:
        return nn.Sequential(*(_build(child) for child in entry.children))
    if entry.class_name not in CLASSES:
        raise ModelError(f"module table names class {entry.class_name!r}; allowed: {', '.join([*CLASSES, CONTAINER])}")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.arguments.items()}
    try:
        module: nn.Module = getattr(nn, entry.class_name)(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"module table: {entry.class_name}({arguments}) cannot be built: {error}") from None
    return module


def module_table(network: "nn.Module", fresh: "nn.Module") -> dict[str, ModuleEntry]:
    """Rows for the modules of `network` that differ from `fresh`, a new build of the same architecture.

    Raises:
        ModelError: the networks differ in a way that replacing leaves cannot express.
    """
    table: dict[str, ModuleEntry] = {}
    _compare(network, fresh, "", table)
    return table


def _compare(ours: "nn.Module", fresh: "nn.Module", path: str, table: dict[str, ModuleEntry]) -> None:
    fresh_children, our_children = dict(fresh.named_children()), dict(ours.named_children())
    if not fresh_children and (type(ours) is not type(fresh) or _is_recordable(fresh)):
        # A leaf of the fresh build: it may have been changed, or replaced by another leaf or by a Sequential.
        entry = _describe(ours, path)
        if type(ours) is not type(fresh) or entry != _describe(fresh, path):
            table[path] = entry
        return
    if our_children.keys() != fresh_children.keys():
        raise ModelError(
            f"module {path or '(root)'} has children {sorted(our_children)}, a fresh build has "
            f"{sorted(fresh_children)}; a checkpoint can record replaced leaf modules only"
        )
    if _own_shapes(ours) != _own_shapes(fresh):
        raise ModelError(
            f"module {path or '(root)'}, a {type(ours).__name__}, has tensors {_own_shapes(ours)}, a fresh build has "
            f"{_own_shapes(fresh)}; a checkpoint can record changed layers of torch.nn's {', '.join(CLASSES)} only"
        )
    for name, child in our_children.items():
        _compare(child, fresh_children[name], f"{path}.{name}" if path else name, table)


def _own_shapes(module: "nn.Module") -> dict[str, tuple[int, ...]]:
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def apply_module_table(network: "nn.Module", table: Mapping[str, ModuleEntry]) -> None:
    """Replace the named leaves of `network` in place.

    Raises:
        ModelError: a path that `network` does not have, or a class outside the fixed list.
    """
    for path, entry in table.items():
        parent_path, _, name = path.rpartition(".")
        try:
            parent = network.get_submodule(parent_path)
            parent.get_submodule(name)
        except AttributeError:
            raise ModelError(f"module table names {path!r}, which this architecture does not have") from None
        setattr(parent, name, _build(entry))
