"""How `bench` goes on with what a device returns."""

import io

import pytest
from rich.console import Console

from phonefit.device_bench.bench import bench
from phonefit.device_bench.device import DeviceError, DeviceInfo, EnergyEstimate, MeasurementError, RawRun
from phonefit.device_bench.devices import DEVICES, DeviceKind, list_devices, open_device
from phonefit.models.errors import FileFormatError, UnknownNameError
from phonefit.pipeline.tables import report_table
from tests.foreign_models import small_model

INFO = DeviceInfo(kind="host", name="bench", architecture="x", cores=2, ram_bytes=1, operating_system="none")


class PlayedDevice:
    """Gives recorded runs, or raises recorded errors, one after the other."""

    def __init__(self, *runs):
        self.runs = list(runs)
        self.calls = []
        self.timeouts = []

    def info(self):
        return INFO

    def prepare(self):
        self.calls.append("prepare")

    def run(self, job):
        self.calls.append("run")
        self.timeouts.append(job.timeout_seconds)
        outcome = self.runs.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def cleanup(self):
        self.calls.append("cleanup")


def run_of(*samples, busy=0.0):
    return RawRun(
        load_nanoseconds=7,
        warmup_nanoseconds=(1000,),
        sample_nanoseconds=samples,
        baseline_bytes=100,
        peak_bytes=150,
        conditions_before={"cores": 2, "busy_cores": busy},
    )


STEADY = (1000,) * 20
UNSTEADY = (1000, 3000) * 10


@pytest.fixture
def model(tmp_path):
    return small_model(tmp_path, "onnx")


def test_a_trusted_measurement_is_not_repeated(model):
    device = PlayedDevice(run_of(*STEADY))
    report = bench(model, device=device, attempts=3)
    assert report.trusted and report.settings["attempts"] == 1
    assert device.calls == ["run"]


def test_an_untrusted_one_is_repeated_and_the_most_trusted_kept(model):
    device = PlayedDevice(run_of(*UNSTEADY), run_of(*STEADY, busy=2.0), run_of(*UNSTEADY))
    report = bench(model, device=device, attempts=3)
    assert report.settings["attempts"] == 3
    assert report.figures["latency"].samples == STEADY
    assert [warning.reason for warning in report.untrusted] == ["other work kept 2.0 of 2 cores busy before the start"]


def test_figures_keep_their_unit_source_and_reason(model):
    figures = bench(model, device=PlayedDevice(run_of(*STEADY))).figures
    assert figures["peak_memory"].samples == (50,) and figures["peak_memory"].unit == "bytes"
    assert figures["load"].samples == (7,)
    assert figures["warmup"].samples == (1000,)
    assert figures["energy"].source == "unavailable" and figures["energy"].note


def test_reference_loops_are_kept_so_that_a_report_can_be_judged_again(model):
    run = run_of(*STEADY).model_copy(update={"reference_before_nanoseconds": (5,), "reference_after_nanoseconds": (6,)})
    figures = bench(model, device=PlayedDevice(run, run), attempts=1).figures
    assert (figures["reference_before"].samples, figures["reference_after"].samples) == ((5,), (6,))
    assert figures["reference_before"].unit == "ns"
    assert "reference_before" not in bench(model, device=PlayedDevice(run_of(*STEADY))).figures


def test_one_that_stays_untrusted_is_handed_back_as_such_and_the_table_says_so(model):
    device = PlayedDevice(*[run_of(*UNSTEADY)] * 5)
    report = bench(model, device=device, attempts=3)
    assert device.calls == ["run"] * 3 and not report.trusted
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report_table(report))
    text = console.export_text()
    assert "not to be trusted, after 3 attempts:" in text
    assert "? the latency varies by 51%" in text and "end other programs" in text
    assert "stable" not in text


def test_a_failed_repeat_does_not_lose_the_first_result(model):
    device = PlayedDevice(run_of(*UNSTEADY), MeasurementError("killed by SIGSEGV"))
    report = bench(model, device=device, attempts=2)
    assert report.figures["latency"].samples == UNSTEADY
    assert any("SIGSEGV" in warning.reason for warning in report.untrusted)


def test_a_device_that_is_opened_by_name_is_cleaned_up_after_a_failure_too(model, monkeypatch):
    device = PlayedDevice(MeasurementError("killed by SIGSEGV"))
    monkeypatch.setitem(DEVICES, "played", DeviceKind("recorded runs", lambda options: device))
    with pytest.raises(MeasurementError):
        bench(model, device="played")
    assert device.calls == ["prepare", "run", "cleanup"]


def test_bad_settings_are_named(model, tmp_path):
    device = PlayedDevice()
    with pytest.raises(DeviceError, match="threads = 0"):
        bench(model, device=device, threads=0)
    with pytest.raises(DeviceError, match="attempts must be at least 1"):
        bench(model, device=device, attempts=0)
    with pytest.raises(DeviceError, match=r"is for onnx, but tflite was asked for"):
        bench(model, device=device, runtime="tflite")
    with pytest.raises(FileFormatError, match=r"suffix '\.pt' is no model file's"):
        bench(tmp_path / "model.pt", device=device)
    with pytest.raises(UnknownNameError, match=r"known: .*host"):
        bench(model, device="toaster")
    assert device.calls == []


def test_the_host_is_among_the_devices():
    assert list_devices()[0].info == open_device("host").info()


def test_a_callers_device_is_not_cleaned_up_between_its_files(model):
    device = PlayedDevice(run_of(*STEADY), run_of(*STEADY))
    bench(model, device=device)
    bench(model, device=device)
    assert device.calls == ["run", "run"]


def test_the_time_out_leaves_room_for_the_wanted_duration(model):
    device = PlayedDevice(run_of(*STEADY))
    bench(model, device=device, duration_seconds=900)
    assert device.timeouts[0] > 900


def test_energy_is_the_devices_or_says_why_there_is_none(model):
    estimate = EnergyEstimate(
        source="gauge", microjoules=1500, uncertainty_microjoules=20, note="gauge: 100 inferences"
    )
    measured = run_of(*STEADY).model_copy(update={"energy": {"energy": estimate, "energy_last_minute": estimate}})
    figures = bench(model, device=PlayedDevice(measured), energy=True).figures
    assert figures["energy_last_minute"] == figures["energy"]
    energy = figures["energy"]
    assert (energy.source, energy.method, energy.samples, energy.uncertainty) == ("measured", "gauge", (1500,), 20)
    charging = run_of(*STEADY).model_copy(update={"energy_note": "USB power is connected"})
    report = bench(model, device=PlayedDevice(charging), energy=True)
    assert report.settings["energy"] is True and report.energy_microjoules() is None
    assert (report.figures["energy"].source, report.figures["energy"].note) == ("unavailable", "USB power is connected")
