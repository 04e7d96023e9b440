"""One emulated phone for all tests that need it, started by the first and stopped after the last.

Test modules ask for these fixtures by `pytest_plugins`, and are of the xdist group "emulator".
"""

import shutil

import pytest

from phonefit.device_bench.emulator.image import default_cache, find_image, is_current
from phonefit.device_bench.emulator.machine import QEMU, Machine


@pytest.fixture(scope="session")
def emulator_cache():
    """Folder with the emulator's image, as `make emulator` left it."""
    cache = default_cache()
    image = find_image(cache)
    if shutil.which(QEMU) is None or image is None or not is_current(image, cache):
        pytest.fail("the emulated phone is not built: make emulator")
    return cache


@pytest.fixture(scope="session")
def emulator_machine(emulator_cache):
    """The running machine. One that ran before the tests goes on running after them."""
    machine = Machine(emulator_cache)
    ran_before = machine.find() is not None
    machine.start()
    yield machine
    if not ran_before:
        machine.stop()
