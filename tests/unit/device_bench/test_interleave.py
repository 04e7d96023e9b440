"""Two files in turn: order, ratio and interval, on recorded runs."""

import numpy as np
import pytest

from phonefit.device_bench.device import DeviceError, DeviceInfo, RawRun
from phonefit.device_bench.interleave import centre_and_interval, interleave
from tests.foreign_models import small_model


class RecordedDevice:
    """Answers with the next recorded latency of the file that is asked for."""

    limits_memory = False

    def __init__(self, latencies):
        self.latencies = {name: list(values) for name, values in latencies.items()}
        self.order = []

    def info(self):
        return DeviceInfo(kind="host", name="x", architecture="x", cores=1, ram_bytes=1, operating_system="x")

    def prepare(self): ...

    def cleanup(self): ...

    def run(self, job):
        self.order.append(job.model.name[0])
        latency = self.latencies[job.model.name].pop(0)
        return RawRun(
            load_nanoseconds=5,
            warmup_nanoseconds=(latency,),
            sample_nanoseconds=(latency,) * 5,
            baseline_bytes=10,
            peak_bytes=30,
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    source = small_model(folder, "onnx")
    return [source.rename(folder / "a.onnx"), (folder / "b.onnx")], source


def pair(files):
    (first, second), _ = files
    second.write_bytes(first.read_bytes())
    return first, second


DRIFT = [1000, 1100, 1300, 1700, 2000, 2600, 3300, 4000]  # the machine becomes four times slower


def test_the_order_changes_from_round_to_round(files):
    device = RecordedDevice({"a.onnx": DRIFT, "b.onnx": DRIFT})
    interleave(*pair(files), device, rounds=6)
    assert "".join(device.order) == "abbaabbaabba"


def test_a_file_against_itself_is_no_difference_though_the_machine_slows_down(files):
    device = RecordedDevice(
        {"a.onnx": DRIFT, "b.onnx": [int(1.01 * x) for x in DRIFT[:4]] + [int(0.99 * x) for x in DRIFT[4:]]}
    )
    result = interleave(*pair(files), device)
    assert result.low <= 1 <= result.high
    assert result.outcome == "no clear difference"
    assert "no clear difference between a.onnx and b.onnx" in result.verdict


def test_twice_as_fast_is_faster_though_the_machine_slows_down(files):
    device = RecordedDevice({"a.onnx": DRIFT, "b.onnx": [x // 2 for x in DRIFT]})
    result = interleave(*pair(files), device)
    assert result.ratio == pytest.approx(0.5)
    assert result.outcome == "faster"
    assert len(result.first.figures["latency"].samples) == 5 * len(DRIFT)


def test_too_few_rounds_are_refused(files):
    with pytest.raises(DeviceError, match="at least 6 but got 5"):
        interleave(*pair(files), RecordedDevice({}), rounds=5)


def test_one_disturbed_round_makes_no_difference(files):
    device = RecordedDevice({"a.onnx": [1000] * 8, "b.onnx": [1010, 990, 5000, 1005, 995, 1010, 990, 1000]})
    result = interleave(*pair(files), device)
    assert result.low < 1 < result.high < 2.5
    assert result.ratio == pytest.approx(1, abs=0.02)


def test_the_interval_is_that_of_signed_ranks():
    """Of eight values, the tables of Wilcoxon's test leave out the three outermost means of pairs on each side."""
    centre, low, high = centre_and_interval(np.exp([1.0, 2, 4, 8, 16, 32, 64, 128]))
    assert np.log([centre, low, high]) == pytest.approx([19.0, 2.5, 72.0])


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Rounds of a file with itself: small noise, and every fifth round disturbed by something else."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.01, (400, 8)) + random.choice([0.0, 0.2, -0.2], (400, 8), p=[0.8, 0.1, 0.1])
    found = [centre_and_interval(np.exp(rounds)) for rounds in noise]
    assert sum(low <= 1 <= high for _, low, high in found) / len(found) > 0.93
