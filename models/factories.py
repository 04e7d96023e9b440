"""Functions of a person's own code, named as "package.module:function": finding them, and noticing when they change."""

import importlib
import os
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

from phonefit.models.errors import ModelError, first_line
from phonefit.models.record import digest_of, file_digest


def imported(factory: str) -> Callable[..., object]:
    """The function of that name.

    Raises:
        ModelError: it is not of this form or cannot be imported.
    """
    module_name, _, function_name = factory.partition(":")
    if not module_name or not function_name:
        raise ModelError(f"factory {factory!r} is not of the form package.module:function")
    # A person's code lives in the current folder, which an installed command, unlike `python -m`, has not on its path.
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
    try:
        function: Callable[..., object] = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:
        raise ModelError(
            f"factory {factory!r} cannot be imported: {first_line(error)}; run from the folder that holds "
            f"{module_name.partition('.')[0]}, or put that folder on PYTHONPATH"
        ) from error
    return function


def code_digest(factory: str) -> str:
    """Digest of the code behind a factory that was imported.

    It covers the modules that are loaded from the folder of the factory's top-level package or module. Installed
    packages count by their versions, not here.
    """
    name = factory.partition(":")[0]
    own = _source(sys.modules[name])
    if own is None:
        return digest_of({})  # made in memory: there is no file to follow
    levels = name.count(".") + (own.stem == "__init__")
    root = own.parents[min(levels, len(own.parents) - 1)]
    package = name.partition(".")[0]
    digests = {own.relative_to(root).as_posix(): file_digest(own)}
    for other, module in list(sys.modules.items()):
        top = other.partition(".")[0]
        source = _source(module)
        if source is None or not source.is_relative_to(root) or top in ("__main__", "phonefit"):
            continue  # a script that only starts phonefit is not part of the network
        if top == package or not _is_installed(source):
            digests[source.relative_to(root).as_posix()] = file_digest(source)
    return digest_of(digests)


def _source(module: ModuleType | None) -> Path | None:
    """The file that a module was loaded from. Read past `getattr`, which makes lazy modules load more."""
    file = module.__dict__.get("__file__") if isinstance(module, ModuleType) else None
    path = Path(file).absolute() if file else None
    return path if path is not None and path.is_file() else None


def _is_installed(source: Path) -> bool:
    """Whether a module belongs to Python or to an installed package."""
    return "site-packages" in source.parts or str(source).startswith(_libraries())


@cache
def _libraries() -> tuple[str, ...]:
    """The folders of Python's and of installed modules, each with a separator at its end; thousands ask for them."""
    return tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib"))
