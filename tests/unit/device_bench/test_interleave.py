"""Two files in turn: order, ratio and interval, on recorded runs."""

import pytest

from phonefit.device_bench.device import DeviceError, DeviceInfo, RawRun
from phonefit.device_bench.interleave import interleave
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
    interleave(*pair(files), device, rounds=4)
    assert "".join(device.order) == "abbaabba"


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
    with pytest.raises(DeviceError, match="at least 4 but got 2"):
        interleave(*pair(files), RecordedDevice({}), rounds=2)
