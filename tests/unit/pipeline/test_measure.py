"""Measuring as a stage: what makes two measurements the same."""

from types import SimpleNamespace

import pytest

from phonefit.device_bench.device import DeviceError, DeviceInfo
from phonefit.models.record import digest_of
from phonefit.pipeline.measure import identity, measure
from phonefit.pipeline.recipe import BenchConfig
from tests.foreign_models import small_model
from tests.tiny import tiny_context

PHONE = DeviceInfo(kind="adb", name="one", architecture="arm64", cores=8, ram_bytes=6 << 30, operating_system="Android")


def test_another_device_of_the_same_name_in_the_recipe_is_another_measurement():
    other = PHONE.model_copy(update={"name": "two"})
    config = BenchConfig(device="host")
    assert digest_of(identity(PHONE, config)) != digest_of(identity(other, config))


def test_settings_count_and_the_wish_to_measure_anew_does_not():
    assert identity(PHONE, BenchConfig(threads=2)) != identity(PHONE, BenchConfig(threads=1))
    assert identity(PHONE, BenchConfig(reuse=False)) == identity(PHONE, BenchConfig())


class FailingPhone:
    """Keeps what was asked of it, and cannot be measured on."""

    limits_memory = False

    def __init__(self):
        self.calls = []

    def info(self):
        return PHONE

    def prepare(self):
        self.calls.append("prepare")

    def run(self, job):
        self.calls.append("run")
        raise DeviceError("too hot")

    def cleanup(self):
        self.calls.append("cleanup")


def test_a_device_is_let_go_of_after_each_file_so_that_nobody_waits_while_holding_one(tmp_path):
    phone, artifact = FailingPhone(), SimpleNamespace(runtime="onnx", precision="fp32", sha256="0")
    with pytest.raises(DeviceError, match="too hot"):
        measure(artifact, small_model(tmp_path, "onnx"), phone, BenchConfig(device="adb:A"), tiny_context(tmp_path))
    assert phone.calls == ["prepare", "run", "cleanup"]
