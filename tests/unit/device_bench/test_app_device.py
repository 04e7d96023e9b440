"""From what the app says to a run, its energy, and errors. No device."""

import random

import pytest

from phonefit.device_bench.app_device import app_energy, difference, raw_run
from phonefit.device_bench.app_files import tolerance
from phonefit.device_bench.app_job import AppCorrectness, AppError, AppGaugeSample, AppJob, AppResult
from phonefit.device_bench.device import DeviceError, MeasurementError
from phonefit.device_bench.energy import EnergyUnavailableError
from phonefit.device_bench.phone_app import parse_result, require_figures
from phonefit.device_bench.stability import check
from phonefit.models.errors import FileFormatError
from tests.unit.device_bench.test_stability import GOLDEN

JOB, RESULT = AppJob.load(GOLDEN / "app_job_1.json"), AppResult.load(GOLDEN / "app_result_1.json")


def test_a_result_as_a_run():
    run = raw_run(RESULT)
    assert (run.load_nanoseconds, run.sample_nanoseconds) == (12_345_678, (5_000_000, 5_010_000, 4_990_000))
    assert run.peak_bytes - run.baseline_bytes == 4 * 2**20 and run.memory_kind == "proportional"
    assert run.versions["org.phonefit.demo"] == "0.1.0" and run.versions["tflite of the app"] == "1.4.2"
    assert run.timed_until_seconds - run.timed_from_seconds == pytest.approx(0.0154)


def test_wrong_outputs_are_a_reason_not_to_trust_a_run():
    wrong = AppCorrectness(max_difference=0.25, cosine=0.9, passed=False)
    run = raw_run(RESULT.model_copy(update={"correctness": wrong}))
    (doubt,) = [one for one in check(run) if "outputs" in one.reason]
    assert "differ from this machine's by up to 25.00% of their range, cosine 0.90000" in doubt.reason
    assert difference(None) == difference(RESULT.correctness) == ""


def gauge(plugged_at=None, milliamperes=(300, 900), seconds=30):
    """Readings each 100 ms: an idle phone, then a busy one, in µA with discharging negative."""
    noise = random.Random(0)
    return tuple(
        AppGaugeSample(
            elapsed_ms=1_000_000 + (index + place * seconds * 10) * 100,
            current_ua=-round((draw + noise.gauss(0, 30)) * 1000),
            voltage_mv=4000,
            plugged=2 if index == plugged_at else 0,
            phase=phase,
        )
        for place, (phase, draw) in enumerate(zip(("idle", "run"), milliamperes, strict=True))
        for index in range(seconds * 10 + 1)
    )


def busy(readings):
    """A result with these readings and 3,000 inferences of 10 ms."""
    start = 1_030_000 * 10**6
    times = {"sample_ns": (10**7,) * 3000, "timed_from_ns": start, "timed_until_ns": start + 30 * 10**9}
    return RESULT.model_copy(update={"gauge": readings, **times})


def test_energy_is_what_the_phone_drew_above_idling():
    result = busy(gauge())
    found = app_energy(result, raw_run(result))["energy"]
    # 0.6 A at 4 V for 10 ms
    assert found.source == "gauge" and found.microjoules == pytest.approx(24_000, rel=0.02)
    assert found.uncertainty_microjoules < 1000 and "BatteryManager" in found.note


def test_a_phone_that_was_plugged_in_tells_no_energy():
    result = busy(gauge(plugged_at=7))
    with pytest.raises(EnergyUnavailableError, match=r"power was connected in 2 of 602 readings.*pull the cable"):
        app_energy(result, raw_run(result))


def test_a_phone_without_a_gauge_tells_no_energy():
    result = busy(tuple(sample.model_copy(update={"current_ua": None}) for sample in gauge()))
    with pytest.raises(EnergyUnavailableError, match=r"readings of a current"):
        app_energy(result, raw_run(result))


@pytest.mark.parametrize(
    ("update", "error", "words"),
    [
        ({"status": "out_of_memory"}, MeasurementError, "for want of memory; close other apps"),
        ({"error": ("job", "schema 2")}, DeviceError, r"refuses the job: schema 2; install it"),
        (
            {"error": ("model", "bad header")},
            FileFormatError,
            r"tflite 1\.4\.2 of the app refuses the file: bad header",
        ),
        ({"error": ("digest", "x")}, MeasurementError, "cannot read what was sent to it: x; run the same command"),
        ({"error": ("crash", "SIGSEGV")}, MeasurementError, "crashed while running it: SIGSEGV"),
        ({"error": ("inference", "x")}, MeasurementError, "tflite gave up while running it: x"),
        ({"job_id": "other"}, MeasurementError, r"the result of another job \(other\)"),
    ],
)
def test_a_result_without_figures_is_the_right_error(update, error, words):
    if "error" in update:
        kind, text = update["error"]
        update = {"status": "error", "error": AppError(kind=kind, message=text)}
    with pytest.raises(error, match=words):
        require_figures(JOB, RESULT.model_copy(update=update))
    assert require_figures(JOB, RESULT) is RESULT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "schema None, this phonefit reads 1"),
        ('{"schema_number": 2}', "schema 2, this phonefit reads 1: the app and phonefit must be of one version"),
        ('{"schema_number": 1}', "job_id: Field required"),
    ],
)
def test_what_is_no_result_is_refused(text, words):
    with pytest.raises(MeasurementError, match=words):
        parse_result(text)


@pytest.mark.parametrize(
    ("dtype", "runtime", "precision", "allowed"),
    [
        ("float32", "executorch", "fp32", 1e-4),
        ("int8", "tflite", "int8", 0),
        ("uint8", "tflite", None, 0),
        ("float32", "executorch", "int8", 1e-4),
        ("float32", "onnx", "fp32", 1e-4),
        ("float32", "onnx", "int8", 0.03),
        ("float32", "tflite", "int8-dynamic", 0.03),
    ],
)
def test_how_far_outputs_may_differ(dtype, runtime, precision, allowed):
    assert tolerance(dtype, runtime, precision) == allowed
