"""Settings for all tests.

Tests marked `emulator` need what `make emulator` builds, those marked `postgres` what `make postgres` installs, those
marked `android` what `make android-tools` fetches, those marked `faces` what `make faces` does, those marked `vgg` what
`make vgg` installs. Where it is not there they are left out, and the summary says so; with PHONEFIT_EMULATOR,
PHONEFIT_POSTGRES, PHONEFIT_ANDROID, PHONEFIT_FACES or PHONEFIT_VGG set to `required`, as in continuous integration,
that is an error.
"""

import os
from importlib.util import find_spec

import pytest

from tests import postgres_server

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


def _lacks_android() -> str:
    from android_demo.check.tools import lacks

    return lacks()


def _lacks_faces() -> str:
    from tests.face_photographs import lacks

    return lacks()


def _lacks_vgg() -> str:
    from phonefit.models.errors import ModelError
    from phonefit.models.families.vgg import EDGES_INSTALL, VGG16_WEIGHTS

    try:
        VGG16_WEIGHTS.locate()
    except ModelError as error:
        return str(error)
    return "" if find_spec("h5py") else f"h5py is missing; run: {EDGES_INSTALL}"


_NEEDS = {
    "emulator": _lacks,
    "postgres": postgres_server.lacks,
    "android": _lacks_android,
    "faces": _lacks_faces,
    "vgg": _lacks_vgg,
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker, lacking in _NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if not marked or not (lacks := lacking()):
            continue
        if os.environ.get(f"PHONEFIT_{marker.upper()}") == "required":
            raise pytest.UsageError(f"PHONEFIT_{marker.upper()}=required, but {lacks}")
        items[:] = [item for item in items if item not in marked]
        config.hook.pytest_deselected(items=marked)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lacks := _lacks():
        terminalreporter.write_line(f"The tests of the emulators and native runners were left out: {lacks}")
    if lacks := postgres_server.lacks():
        terminalreporter.write_line(f"The tests with a database were left out: {lacks}")
    if lacks := _lacks_android():
        terminalreporter.write_line(f"The check of the Android app was left out: {lacks}")
    if lacks := _lacks_faces():
        terminalreporter.write_line(f"The test of face_resnet on photographs was left out: {lacks}")
    if lacks := _lacks_vgg():
        terminalreporter.write_line(f"The tests of VGG16's packaged weights were left out: {lacks}")
