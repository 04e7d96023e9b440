"""Energy of an inference over the real adb client, on a stand-in whose battery and rails follow a known model."""

import contextlib
import functools
import io
import json
import signal
import statistics
import subprocess
import sys
import threading

import psutil
import pytest

from phonefit.device_bench import energy_meter
from phonefit.device_bench.adb_errors import ConnectionLostError
from phonefit.device_bench.android import AndroidDevice
from phonefit.device_bench.bench import report_of
from phonefit.device_bench.power_sampling import SysfsSource
from tests.device.adb_device_stand_in import PROGRAMS
from tests.device.adb_fixtures import PROCESS, wait_for
from tests.device.battery_stand_in import (
    BUSY_WATTS,
    DESIGN_MILLIAMPERE_HOURS,
    ENERGY_RUNNER,
    SUPPLY,
    BatteryStandIn,
    install_perfetto_stand_in,
)
from tests.device.phone_case import become_phone, runner_folder, small_job, transcript

pytest_plugins = ["tests.device.adb_fixtures"]

SECONDS = 1.5
UNPLUGGED = transcript("battery_9").replace("USB powered: true", "USB powered: false").replace("status: 2", "status: 3")


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch):
    """As many readings in a second as a phone gives in five."""
    monkeypatch.setattr(energy_meter, "SysfsSource", functools.partial(SysfsSource, interval_seconds=0.02))


@pytest.fixture
def busy(tmp_path):
    return tmp_path / "busy"


@pytest.fixture
def phone(private_adb, stand_in, tmp_path, busy):
    """Opens the phone without a cable, with a runner whose inferences fill the time."""
    become_phone(stand_in)
    stand_in.replies["dumpsys battery"] = UNPLUGGED
    opened = contextlib.ExitStack()

    def open_with(tells_times="yes"):
        program = runner_folder(tmp_path / "native", ENERGY_RUNNER.format(busy=busy, tells_times=tells_times))
        device = AndroidDevice(
            stand_in.serial, server=private_adb, state=tmp_path / "state", find_runner=lambda *_: program
        )
        opened.callback(device.cleanup)
        device.prepare()
        return device

    with opened:
        yield open_with


@pytest.fixture
def battery(stand_in, busy):
    """A battery that tells µA, discharging negative."""
    with BatteryStandIn(stand_in.local(SUPPLY), busy) as started:
        yield started


def energy_job(tmp_path, **settings):
    return small_job(tmp_path, energy=True, duration_seconds=SECONDS, **settings)


def truth(run):
    """Microjoules of an inference above idling, by the stand-in's model."""
    return BUSY_WATTS * statistics.mean(run.sample_nanoseconds) / 1e3


def assert_true(run, kind):
    """The coverage of the interval is a matter of the unit tests; three times its width is never left by chance."""
    estimate = run.energy["energy"]
    assert estimate.source == kind
    assert estimate.uncertainty_microjoules < 0.2 * truth(run)
    assert abs(estimate.microjoules - truth(run)) < 3 * estimate.uncertainty_microjoules
    return estimate


def samplers(stand_in):
    """Processes that belong to samplers of this stand-in."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "power_" in line and str(stand_in.root) in line and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


@pytest.mark.parametrize(
    "current_of_discharge", [-1000.0, 1000.0, -1.0], ids=["as Android asks", "other sign", "milliamperes"]
)
def test_the_gauge_gives_back_the_energy_of_the_model(phone, stand_in, tmp_path, busy, current_of_discharge):
    with BatteryStandIn(stand_in.local(SUPPLY), busy, current_of_discharge):
        run = phone().run(energy_job(tmp_path))
    estimate = assert_true(run, "gauge")
    assert f"current and voltage of {SUPPLY}" in estimate.note
    assert samplers(stand_in) == []


def test_a_report_says_what_it_takes_of_the_battery(phone, battery, stand_in, tmp_path):
    from rich.console import Console

    from phonefit.pipeline.tables import report_table

    device, job = phone(), energy_job(tmp_path)
    report = report_of(job, device.run(job), device.info(), "0" * 64)
    device.cleanup()
    figure = report.figures["energy"]
    assert (figure.unit, figure.source, figure.method) == ("uJ", "measured", "gauge") and figure.uncertainty > 0
    assert report.battery_capacity() == (DESIGN_MILLIAMPERE_HOURS * 1000, f"charge_full_design of {SUPPLY}")
    console = Console(width=200, file=io.StringIO())
    console.print(report_table(report))
    text = console.file.getvalue()
    assert "energy of an inference" in text and "% of the 4,000 mAh battery (capacity: charge_full_design" in text
    assert stand_in.files() == []


def test_without_its_design_capacity_batterystats_is_asked(phone, stand_in, tmp_path, busy):
    with BatteryStandIn(stand_in.local(SUPPLY), busy, tells_capacity=False):
        device = phone()
        run = device.run(energy_job(tmp_path))
        assert run.conditions_before["battery_capacity_microampere_hours"] is None
        stand_in.replies["dumpsys batterystats"] = transcript("batterystats_13")
        known = energy_meter.battery_capacity(device._open())
    assert "energy" in run.energy
    assert known["battery_capacity_source"] == "dumpsys batterystats"
    assert known["battery_capacity_microampere_hours"] > 1_000_000


def test_while_charging_there_is_no_energy_but_all_else(phone, battery, stand_in, tmp_path):
    stand_in.replies["dumpsys battery"] = transcript("battery_9")
    device, job = phone(), energy_job(tmp_path)
    report = report_of(job, device.run(job), device.info(), "0" * 64)
    assert report.median_milliseconds() > 0
    assert report.figures["energy"].source == "unavailable"
    assert "USB power is connected; use adb over Wi-Fi" in report.figures["energy"].note


def test_a_cable_that_is_put_in_during_the_run_spoils_the_energy_only(phone, battery, stand_in, tmp_path, busy):
    stand_in.replies["dumpsys battery"] = lambda _: (0, transcript("battery_9") if plugged else UNPLUGGED)
    plugged: list[bool] = []
    threading.Thread(target=lambda: (wait_for(busy.exists), plugged.append(True)), daemon=True).start()
    run = phone().run(energy_job(tmp_path))
    assert run.energy == {} and "USB power is connected" in run.energy_note and len(run.sample_nanoseconds) == 20


def test_a_phone_that_tells_no_power_says_so(phone, stand_in, tmp_path):
    run = phone().run(energy_job(tmp_path).model_copy(update={"duration_seconds": None}))
    assert run.energy == {} and len(run.sample_nanoseconds) == 20
    assert "no power rails (there is no perfetto on the device); no gauge" in run.energy_note


def test_a_runner_that_does_not_say_when_it_ran_is_taken_as_a_whole(phone, battery, tmp_path, busy):
    run = phone(tells_times="no").run(energy_job(tmp_path))
    said = run.energy["energy"].note if run.energy else run.energy_note
    # what starting takes may make the run too long for the baseline
    assert "loading and warm-ups are in it" in said or "they must be equal" in said


def test_the_battery_service_serves_where_the_files_cannot_be_read(phone, battery, stand_in, tmp_path, monkeypatch):
    supply, folder = stand_in.local(SUPPLY), stand_in.local(PROGRAMS)
    hidden = supply.rename(tmp_path / "hidden")
    battery._supply = hidden
    folder.mkdir(parents=True)
    for name, line in {
        "cmd": f'[ "$*" = "battery get -f current_now" ] && cat {hidden}/current_now',
        "dumpsys": "printf '  level: 85\\n  voltage: 4000\\n'",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    stand_in.replies["cmd"] = lambda arguments: (0, "-300000\n" if arguments[1:2] == ["battery"] else "")
    monkeypatch.setattr(
        energy_meter, "ServiceSource", functools.partial(energy_meter.ServiceSource, interval_seconds=0.02)
    )
    run = phone().run(energy_job(tmp_path))
    assert "cmd battery get current_now" in assert_true(run, "gauge").note


def test_power_rails_come_before_the_gauge_and_bear_a_cable(phone, stand_in, tmp_path, busy):
    pytest.importorskip("perfetto")
    install_perfetto_stand_in(stand_in.local(f"{PROGRAMS}/perfetto"), busy)
    stand_in.local("/data/misc/perfetto-traces").mkdir(parents=True)
    stand_in.replies["dumpsys battery"] = transcript("battery_9")
    device = phone()
    run = device.run(energy_job(tmp_path))
    assert "the sum of 2 power rails" in assert_true(run, "rail").note
    device.cleanup()
    assert stand_in.files() == [] and list(stand_in.local("/data/misc/perfetto-traces").iterdir()) == []


def test_a_perfetto_without_rails_leaves_it_to_the_gauge(phone, battery, stand_in, tmp_path, busy):
    pytest.importorskip("perfetto")
    install_perfetto_stand_in(stand_in.local(f"{PROGRAMS}/perfetto"), busy, has_rails=False)
    stand_in.local("/data/misc/perfetto-traces").mkdir(parents=True)
    assert_true(phone().run(energy_job(tmp_path)), "gauge")


def test_unplugged_in_the_middle_ends_the_sampler_when_the_phone_is_back(
    phone, battery, stand_in, private_adb, tmp_path, busy
):
    device = phone()
    device._shell._return_seconds = 0.5

    def pull_the_cable():
        wait_for(busy.exists)
        stand_in.answering = False
        stand_in.unplug()

    threading.Thread(target=pull_the_cable, daemon=True).start()
    with pytest.raises(ConnectionLostError):
        device.run(energy_job(tmp_path))
    device.cleanup()
    # it goes on, detached as it is
    assert samplers(stand_in) != [] and any("power_run" in name for name in stand_in.files())
    stand_in.answering = True
    private_adb.disconnect(stand_in.serial)
    private_adb.connect(stand_in.serial)
    busy.unlink(missing_ok=True)
    device.prepare()
    device.cleanup()
    wait_for(lambda: samplers(stand_in) == [])
    assert stand_in.files() == []


@pytest.mark.parametrize("moment", ["power_idle", "power_run"])
def test_ctrl_c_ends_the_sampler_and_removes_its_files(private_adb, battery, stand_in, tmp_path, busy, moment):
    become_phone(stand_in)
    stand_in.replies["dumpsys battery"] = UNPLUGGED
    idle_seconds = 0.5 if moment == "power_run" else 600
    # the runner never ends
    hangs = "#!/bin/sh\nexec sleep 600\n"
    case = {
        "serial": stand_in.serial,
        "port": private_adb.port,
        "binary": private_adb.binary(),
        "state": str(tmp_path / "state"),
        "program": str(runner_folder(tmp_path / "native", hangs)),
        "job": small_job(tmp_path, energy=True, duration_seconds=idle_seconds).as_json(),
    }
    process = subprocess.Popen([sys.executable, "-c", PROCESS, json.dumps(case)], stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: any(f"{moment}.log" in name for name in stand_in.files()) and samplers(stand_in))
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: samplers(stand_in) == [])
    assert stand_in.files() == [] and stand_in.settings == {}
