"""Calibration on the real emulator: real models, really counted; only the phone's times are a stand-in.

Needs `make emulator`. What it shows is that the fit finds a device again that is a sum of counts x cycles, from few
models and noisy times. How far a real phone is such a sum only a real phone can tell.
"""

import json
import statistics
import subprocess
import sys

import pytest

from phonefit.device_bench.bench import bench
from phonefit.device_bench.emulator.calibration import FittedCore
from phonefit.device_bench.emulator.latency_model import core_named
from phonefit.device_bench.report import Report
from tests.foreign_models import quantised_tflite, small_model, wide_model
from tests.phone_times import PhoneTimesStandIn, onnx_model

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("calibration")]  # its fixtures take long
# Median of |estimate / true - 1| on models that the fit has not seen; the stand-in's noise is 2 %.
LARGEST_UNSEEN_ERROR = 0.05


def invoke(*arguments, exit_code=0):
    line = [sys.executable, "-m", "phonefit.pipeline.cli", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, done.stderr
    return done.stdout + done.stderr if exit_code else done.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of unlike size and kind, and others to be estimated."""
    folder = tmp_path_factory.mktemp("models")
    seen = [
        small_model(folder, "tflite"),
        small_model(folder, "executorch"),
        quantised_tflite(folder),
        wide_model(folder, "onnx"),
        onnx_model(folder, "dense", channels=32, size=28),
        onnx_model(folder, "pointwise", channels=96, size=14, kernel=1),
        onnx_model(folder, "depthwise", channels=64, size=56, grouped=True),
        onnx_model(folder, "head", channels=16, size=14, hidden=500),
    ]
    unseen = [
        wide_model(folder, "tflite"),
        small_model(folder, "onnx"),
        onnx_model(folder, "depthwise2", channels=96, size=28, kernel=5, grouped=True),
    ]
    return seen, unseen


def test_a_phone_is_found_again_and_unseen_models_are_estimated(models, tmp_path, monkeypatch):
    seen, unseen = models
    monkeypatch.setenv("PHONEFIT_CORES", str(tmp_path / "cores"))
    phone = PhoneTimesStandIn(core_named("cortex-a76"))
    reports = []
    for model in seen:
        reports.append(tmp_path / f"{model.name}.json")
        phone.report(bench(model, device="emulator:counts")).save(reports[-1])

    command = ["calibrate", "--name", "my-phone", *reports, "--models", seen[0].parent]
    said = json.loads(invoke(*command, "--json"))
    core = FittedCore.load(tmp_path / "cores" / "my-phone.json")
    assert said["file"] == str(tmp_path / "cores" / "my-phone.json")
    assert len(core.calibration.models) == len(seen)
    # what it says of its error on unseen models is of the size that they show
    assert core.calibration.error <= 0.04 and core.calibration.unseen_error <= 2 * LARGEST_UNSEEN_ERROR

    fitted, unfitted = [], []
    for number, model in enumerate(unseen):
        counted = bench(model, device="emulator:counts")
        if number == 0:  # as a person does it
            invoke("bench", model, "--device", "emulator:counts:core=my-phone", "--save", tmp_path / "0.json")
        else:
            bench(model, device="emulator:counts:core=my-phone").save(tmp_path / f"{number}.json")
        report = Report.load(tmp_path / f"{number}.json")
        assert report.figures["instructions"] == counted.figures["instructions"]
        true = phone.nanoseconds(counted)
        fitted.append(abs(report.median_milliseconds() * 1e6 / true - 1))
        unfitted.append(abs(counted.median_milliseconds() * 1e6 / true - 1))
    assert statistics.median(fitted) < LARGEST_UNSEEN_ERROR < statistics.median(unfitted) / 3
    latency = report.figures["latency"]
    assert latency.source == "modelled" and "fitted to 8 reports of Stand-in Phone: median error" in latency.note

    counted.save(tmp_path / "unfitted.json")
    refused = invoke("compare", tmp_path / "unfitted.json", tmp_path / "0.json", exit_code=2)
    assert "device name cortex-a76, counted against my-phone (fitted" in refused
    assert "L2 misses" in invoke("compare", tmp_path / "0.json", tmp_path / "1.json")
    assert '"emulator:counts:core=my-phone"' in invoke("devices", "--json")
    table = invoke(*command)
    assert "Stand-in Phone: median error" in table and "--device emulator:counts:core=my-phone" in table
    assert max(map(len, table.splitlines())) <= 80


def test_the_small_core_counts_with_its_own_caches_and_runs_every_runtime(models):
    seen, _ = models
    for model in (seen[0], seen[1], seen[3]):
        small, large = (bench(model, device=f"emulator:counts:core=cortex-{name}") for name in ("a55", "a76"))
        assert small.median_milliseconds() > large.median_milliseconds()
        assert not small.device.like(large.device)
