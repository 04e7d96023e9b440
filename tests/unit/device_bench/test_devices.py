"""Names of devices and what may follow them."""

import pytest

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.devices import DEVICES, DeviceKind, kind_of, list_devices, open_device
from phonefit.models.errors import UnknownNameError
from tests.unit.device_bench.test_calibration import GOLDEN


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("host", "host", ""),
        ("emulator", "emulator", ""),
        ("emulator:ram=4G", "emulator", "ram=4G"),
        ("emulator:counts", "emulator:counts", ""),
        ("emulator:counts:core=cortex-a55", "emulator:counts", "core=cortex-a55"),
        ("adb:192.168.0.7:5555", "adb", "192.168.0.7:5555"),
    ],
)
def test_a_name_is_the_longest_kind_and_its_options(name, kind, options):
    assert kind_of(name) == (DEVICES[kind], options)


@pytest.mark.parametrize("name", ["", "toaster", "host:fast", "adb:", "emulator:", "emulator:counts:", ":adb"])
def test_names_of_no_device(name):
    with pytest.raises(UnknownNameError, match=r"known: .*emulator:counts:core=NAME, emulator:ram=4G"):
        kind_of(name)


def test_a_kind_without_options_does_not_leave_them_to_a_shorter_one(monkeypatch):
    monkeypatch.setitem(DEVICES, "adb:wifi", DeviceKind("a kind that takes no options", lambda options: None))
    with pytest.raises(UnknownNameError):
        kind_of("adb:wifi:SERIAL")


@pytest.mark.parametrize("options", ["core=", "cortex-a55", "ram=4G"])
def test_counts_takes_a_core_only(options):
    with pytest.raises(DeviceError, match=f"emulator:counts:{options}: its only option is the core"):
        open_device(f"emulator:counts:{options}")


def test_each_core_is_another_device():
    names = [open_device(name).info().name for name in ("emulator:counts", "emulator:counts:core=cortex-a55")]
    assert names == ["cortex-a76, counted", "cortex-a55, counted"]
    assert open_device("emulator:counts:core=cortex-a76").info() == open_device("emulator:counts").info()


def test_cores_are_listed_as_a_device_takes_them_and_broken_ones_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PHONEFIT_CORES", str(tmp_path))
    (tmp_path / "my-phone.json").write_text(GOLDEN.read_text())
    (tmp_path / "broken.json").write_text("{")
    lines = {line.name: line for line in list_devices()}
    assert "emulator:counts:core=cortex-a55" in lines and "emulator:counts:core=cortex-a76" not in lines
    assert lines["emulator:counts:core=my-phone"].state in ("ready", "not ready")
    broken = lines["emulator:counts:core=broken"]
    assert broken.state == "unusable" and "broken.json: not JSON" in broken.remarks
