"""Measuring as a stage: what makes two measurements the same."""

from phonefit.device_bench.device import DeviceInfo
from phonefit.models.record import digest_of
from phonefit.pipeline.measure import identity
from phonefit.pipeline.recipe import BenchConfig

PHONE = DeviceInfo(kind="adb", name="one", architecture="arm64", cores=8, ram_bytes=6 << 30, operating_system="Android")


def test_another_device_of_the_same_name_in_the_recipe_is_another_measurement():
    other = PHONE.model_copy(update={"name": "two"})
    config = BenchConfig(device="host")
    assert digest_of(identity(PHONE, config)) != digest_of(identity(other, config))


def test_settings_count_and_the_wish_to_measure_anew_does_not():
    assert identity(PHONE, BenchConfig(threads=2)) != identity(PHONE, BenchConfig(threads=1))
    assert identity(PHONE, BenchConfig(reuse=False)) == identity(PHONE, BenchConfig())
