"""phonefit: fit a PyTorch vision model to your own data and to a given phone.

from phonefit import run, search, bench, compare
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phonefit.device_bench.bench import bench as bench
    from phonefit.device_bench.compare import compare as compare
    from phonefit.pipeline.run import run as run
    from phonefit.pipeline.search.study import search as search

__version__ = "0.1.0"
__all__ = ["bench", "compare", "run", "search"]

_PLACES = {
    "bench": "phonefit.device_bench.bench",
    "compare": "phonefit.device_bench.compare",
    "run": "phonefit.pipeline.run",
    "search": "phonefit.pipeline.search.study",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `import phonefit` and the command's --help import neither torch nor optuna.
    if name in _PLACES:
        import importlib

        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'phonefit' has no attribute {name!r}")
