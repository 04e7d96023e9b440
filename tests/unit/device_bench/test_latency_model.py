"""The latency model and its fit to a device, on made-up counts with known coefficients."""

import numpy as np
import pytest

from phonefit.device_bench.device import DeviceError, DeviceInfo
from phonefit.device_bench.emulator.fit import fit
from phonefit.device_bench.emulator.latency_model import TERMS, Core, core_named, cores
from phonefit.device_bench.report import Figure, Report
from phonefit.models.errors import UnknownNameError

TRUE = dict(zip(TERMS, (0.4, 1.5, 0.7, 0.6, 0.9, 3.0, 8.0, 40.0), strict=True))
PHONE = DeviceInfo(
    kind="adb", name="phone", architecture="aarch64", cores=8, ram_bytes=6 * 2**30, operating_system="Android 14"
)
COUNTER = PHONE.model_copy(update={"kind": "emulator", "name": "counted"})


@pytest.fixture
def core():
    return core_named("cortex-a76")


def report(number, device, figures, latency, source):
    return Report(
        model_sha256=f"{number:064x}",
        model_bytes=1,
        model_name=f"model{number}",
        runtime="tflite",
        device=device,
        settings={"threads": 1},
        figures={
            "latency": Figure(unit="ns", source=source, samples=(latency,)),
            **{
                name: Figure(unit="instructions", source="counted", samples=(value,)) for name, value in figures.items()
            },
        },
    )


def reports(core, count, noise=0.0, cycles=TRUE):
    """(measured, counted) of models that use the classes in unlike proportions, as measured with these coefficients."""
    random = np.random.default_rng(1)
    measured, counted = [], []
    for number in range(count):
        size = random.uniform(1e6, 1e8)
        weights = size * random.dirichlet(np.ones(len(TERMS))) * [1, 0.3, 1, 1, 1, 0.05, 0.02, 0.01]
        row = dict(zip(TERMS, map(float, weights), strict=True))
        true = sum(row[name] * cycles[name] for name in TERMS) / core.frequency_hertz * 1e9
        measured.append(report(number, PHONE, {}, true * (1 + noise * random.standard_normal()), "measured"))
        counted.append(report(number, COUNTER, row, 1.0, "modelled"))
    return measured, counted


def test_an_estimate_is_the_sum_of_counts_times_cycles_over_the_clock(core):
    counts = dict.fromkeys(TERMS, 0.0) | {"integer_instructions": 3e6, "l3_misses": 1e4}
    cycles = 3e6 * core.cycles["integer_instructions"] + 1e4 * core.cycles["l3_misses"]
    assert core.nanoseconds(counts) == round(cycles / 2.4)


def test_every_figure_of_every_core_has_a_source():
    for core in cores().values():
        assert set(core.sources) == {"caches", "cpuinfo", *TERMS}
        assert all(core.sources.values())


def test_a_core_without_a_coefficient_or_with_a_negative_one_is_refused(core):
    content = core.as_json()
    for cycles in ({}, {**content["cycles"], "l1_misses": -1.0}):
        with pytest.raises(ValueError, match="cycles must give"):
            Core.model_validate({**content, "cycles": cycles})


def test_programs_find_an_arm_processor(core):
    files = core.guest_files()
    assert "CPU part\t: 0xd0b\n" in files["proc/cpuinfo"]
    assert "asimddp" in files["proc/cpuinfo"]
    assert files["sys/devices/system/cpu/present"] == "0\n"


def test_an_unknown_core_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="cortex-a76"):
        core_named("cortex-z99")


def test_the_fit_finds_the_coefficients_of_the_device(core):
    fitted = fit(*reports(core, 40), core, prior=1e-9)
    for name in TERMS:
        assert fitted.cycles[name] == pytest.approx(TRUE[name], rel=0.01), name
    assert fitted.largest_error < 1e-3 and fitted.unseen_error < 1e-3


def test_with_noise_the_error_shown_is_that_of_the_noise(core):
    fitted = fit(*reports(core, 40, noise=0.05), core)
    assert 0.01 < fitted.error < 0.06
    assert fitted.error <= fitted.unseen_error < 0.1
    assert min(fitted.cycles.values()) >= 0


def test_a_fit_to_a_few_models_is_closer_for_unseen_ones_than_the_published_coefficients(core):
    measured, counted = reports(core, 36)
    better = fit(measured[:6], counted[:6], core).apply(core, "phone")

    def error(model):
        errors = []
        for true, row in zip(measured[6:], counted[6:], strict=True):
            estimate = model.nanoseconds({name: row.figures[name].samples[0] for name in TERMS})
            errors.append(abs(estimate / true.figures["latency"].samples[0] - 1))
        return np.median(errors)

    assert error(better) < error(core) / 2
    assert "6 reports of phone" in better.sources["l1_misses"]


def test_what_a_device_confirms_is_left_as_it_is(core):
    fitted = fit(*reports(core, 4, cycles=core.cycles), core)
    for name in TERMS:
        assert fitted.cycles[name] == pytest.approx(core.cycles[name], rel=1e-6)


def test_too_few_common_files_are_refused(core):
    measured, counted = reports(core, 4)
    with pytest.raises(DeviceError, match=r"at least 3 files .* got 2"):
        fit(measured[:3], counted[1:], core)


def test_reports_of_two_devices_are_refused(core):
    measured, counted = reports(core, 3)
    other = measured[0].model_copy(update={"device": PHONE.model_copy(update={"name": "another"})})
    with pytest.raises(DeviceError, match="one device"):
        fit([*measured, other], counted, core)


def test_estimates_are_no_measurements_to_fit_to(core):
    _, counted = reports(core, 3)
    with pytest.raises(DeviceError, match="latency is modelled"):
        fit(counted, counted, core)


def test_reports_of_several_threads_are_refused(core):
    measured, counted = reports(core, 3)
    parallel = [each.model_copy(update={"settings": {"threads": 4}}) for each in measured]
    with pytest.raises(DeviceError, match="4 threads"):
        fit(parallel, counted, core)
