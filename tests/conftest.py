"""Settings for all tests.

Tests marked `emulator` need what `make emulator` builds. Where it is not built they are left out, and the summary says
so; with PHONEFIT_EMULATOR=required, as in continuous integration, that is an error.
"""

import os

import pytest

# One thread for each of the parallel test processes, or they would wait for each other. Before torch is imported;
# worker processes inherit it.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("COLUMNS", "80")  # width of tables


def _lacks() -> str:
    """What the emulator tests lack, with the remedy; "" when nothing."""
    from phonefit.device_bench.emulator import counting, phone
    from phonefit.device_bench.native_runner import runner_for

    native = "" if runner_for("tflite") else "the native runners of this machine are not built: make native"
    return native or counting.missing() or phone.missing()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("emulator")]
    if not marked or not (lacks := _lacks()):
        return
    if os.environ.get("PHONEFIT_EMULATOR") == "required":
        raise pytest.UsageError(f"PHONEFIT_EMULATOR=required, but {lacks}")
    items[:] = [item for item in items if item not in marked]
    config.hook.pytest_deselected(items=marked)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lacks := _lacks():
        terminalreporter.write_line(f"The tests of the emulators and native runners were left out: {lacks}")
