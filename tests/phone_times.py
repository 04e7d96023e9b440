"""Stand-ins for what calibration needs and this machine may lack: a phone's times, and the emulator's counts."""

import zlib

import numpy as np

from phonefit.device_bench.device import DeviceInfo, RawRun
from phonefit.device_bench.emulator.counting import CountingDevice
from phonefit.device_bench.emulator.latency_model import TERMS, core_named
from tests.foreign_models import onnx_bytes

PHONE = DeviceInfo(
    kind="adb",
    name="Stand-in Phone",
    architecture="arm64-v8a",
    cores=8,
    ram_bytes=6 * 2**30,
    operating_system="Android 14",
)
# What one of each costs on the phone that is stood in for: nothing that a fit may look at.
HIDDEN = dict(zip(TERMS, (0.6, 1.8, 0.8, 0.9, 0.7, 4.0, 9.0, 30.0), strict=True))


class PhoneTimesStandIn:
    """A phone whose latency is exactly a sum of counts x hidden cycles, with noise. Real phones are not so simple.

    Args:
        core: gives the clock.
        noise: standard deviation of a sample, and of a whole measurement, as a share.
    """

    def __init__(self, core, noise=0.02, cycles=HIDDEN, seed=7):
        self.core = core.model_copy(update={"cycles": cycles})
        self.noise = noise
        self.random = np.random.default_rng(seed)

    def nanoseconds(self, counted):
        """Its true time for what a report has counted."""
        return self.core.nanoseconds({name: counted.figures[name].samples[0] for name in TERMS})

    def report(self, counted, **changes):
        """The report of the phone on the file of a counted report."""
        true = self.nanoseconds(counted) * (1 + self.noise * self.random.standard_normal())
        samples = true * (1 + self.noise * self.random.standard_normal(30))
        latency = counted.figures["latency"].model_copy(
            update={"source": "measured", "samples": tuple(map(float, samples)), "note": "stand-in"}
        )
        settings = {**counted.settings, "repeats": 30}
        return counted.model_copy(
            update={"device": PHONE, "figures": {"latency": latency}, "settings": settings, **changes}
        )


class CountsStandIn:
    """The counting tier without its emulator: made-up counts that depend on the file alone."""

    limits_memory = False

    def __init__(self, core="cortex-a76"):
        self.core = core_named(core)
        self.device = CountingDevice(core)

    def info(self):
        return self.device.info()

    def prepare(self):
        pass

    def cleanup(self):
        pass

    def run(self, job):
        random = np.random.default_rng(zlib.crc32(job.model.read_bytes()))
        shares = random.dirichlet(np.ones(len(TERMS))) * [1, 0.3, 1, 1, 1, 0.05, 0.02, 0.01]
        counts = dict(zip(TERMS, map(float, random.uniform(1e6, 1e8) * shares), strict=True))
        return RawRun(
            load_nanoseconds=1,
            warmup_nanoseconds=(),
            sample_nanoseconds=(self.core.nanoseconds(counts),),
            baseline_bytes=0,
            peak_bytes=1,
            versions={"onnxruntime": "1.0"},
            counts={name: (value,) for name, value in counts.items()},
            latency_source="modelled",
            latency_note=self.core.origin,
        )


def onnx_model(folder, name, channels, size, kernel=3, grouped=False, hidden=0):
    """A real .onnx file: a convolution (grouped: depthwise), ReLU, and with `hidden` a matrix after it."""
    from onnx import helper, numpy_helper

    random = np.random.default_rng(channels * size + kernel)
    groups = channels if grouped else 1
    weights = {"kernel": random.standard_normal((channels, channels // groups, kernel, kernel), dtype=np.float32)}
    padding = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=padding, group=groups),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["y" if not hidden else "f"]),
    ]
    features = channels * size * size
    if hidden:
        weights["matrix"] = random.standard_normal((features, hidden), dtype=np.float32)
        nodes.append(helper.make_node("MatMul", ["f", "matrix"], ["y"]))
    inputs = {"x": ("FLOAT", [1, channels, size, size])}
    outputs = {"y": ("FLOAT", [1, hidden or features])}
    path = folder / f"{name}.onnx"
    path.write_bytes(
        onnx_bytes(nodes, inputs, outputs, [numpy_helper.from_array(value, key) for key, value in weights.items()])
    )
    return path
