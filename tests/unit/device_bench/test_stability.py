"""Which measurements are trusted. Recorded ones lie in tests/golden."""

from pathlib import Path

import numpy as np
import pytest

from phonefit.device_bench.device import RawRun
from phonefit.device_bench.report import Report
from phonefit.device_bench.stability import check

GOLDEN = Path(__file__).parents[2] / "golden"


def run_of(samples, warmups=(1_000_000,), **conditions):
    return RawRun(
        load_nanoseconds=1,
        warmup_nanoseconds=warmups,
        sample_nanoseconds=tuple(int(sample) for sample in samples),
        baseline_bytes=0,
        peak_bytes=0,
        conditions_before=conditions,
    )


def beside(before, after):
    """A steady run between these reference loops, in ms."""
    times = {"before": before, "after": after}
    return run_of(steady()).model_copy(
        update={
            f"reference_{name}_nanoseconds": tuple(int(1e6 * each) for each in side) for name, side in times.items()
        }
    )


def steady(count=50, milliseconds=1.0, variation=0.02):
    return np.random.default_rng(0).normal(milliseconds, milliseconds * variation, count) * 1e6


def reasons(run):
    return [warning.reason for warning in check(run)]


def test_steady_samples_are_trusted():
    assert check(run_of(steady())) == ()


def test_identical_samples_are_trusted():
    assert check(run_of([1_000_000] * 20)) == ()


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (run_of(steady(5)), "only 5 sample"),
        (run_of(steady(variation=0.2)), "varies by"),
        (run_of(steady() * np.linspace(1, 1.2, 50)), r"last third of the samples is \+1"),
        (run_of(steady() * np.linspace(1.2, 1, 50)), "last third of the samples is -1"),
        (run_of(steady(), warmups=(9_000_000, 3_000_000)), "last warm-up took 3.0 times"),
        (run_of([4_000_000, *steady(200)], warmups=()), "first sample, without a warm-up, took 4.0 times"),
        (run_of(steady(), cores=2, busy_cores=1.4), "1.4 of 2 cores busy"),
        (run_of(steady(), cores=4, load_average_1m=3.1), "load average was 3.1 on 4 cores"),
        (run_of([*steady(40), *[2_500_000] * 4]), "9% of the samples took over 2 times"),
        (
            run_of(np.random.default_rng(0).permutation([*steady(30), *steady(30, 1.15)])),
            "two levels, 1.00 and 1.15 ms",
        ),
        (beside([5.0, 5.0, 5.1, 5.0, 5.0], [6.0, 6.0, 6.1, 6.0, 6.0]), "20% longer after the measurement"),
        (beside([5.0, 9.0, 5.1, 9.5, 5.0], [5.0, 5.0, 5.1, 5.0, 5.0]), "80% longer than at its fastest"),
        (beside([5.0, 5.0, 5.1, 5.0, 5.0], [5.0, 9.0, 5.1, 9.5, 5.0]), "80% longer than at its fastest"),
    ],
)
def test_each_trouble_is_named_with_a_remedy(run, reason):
    import re

    found = [warning for warning in check(run) if re.search(reason, warning.reason)]
    assert len(found) == 1, reasons(run)
    assert found[0].remedy


def test_a_load_average_of_work_that_has_ended_is_no_reason():
    assert check(run_of(steady(), cores=2, load_average_1m=1.9, busy_cores=0.1)) == ()


def test_work_that_began_during_the_measurement_is_seen_at_its_end():
    run = run_of(steady(), cores=2, busy_cores=0.1).model_copy(update={"conditions_after": {"busy_cores": 1.2}})
    assert reasons(run) == ["other work kept 1.2 of 2 cores busy after the end"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([5.0, 5.1, 4.9, 5.0, 5.0], [5.1, 5.0, 5.2, 5.1, 5.1]),
        ([5.0, 5.1, 9.9, 5.0, 5.0], [5.0, 5.0, 5.2, 9.1, 5.1]),  # one interrupted loop on each side
        ([6.0, 6.0, 6.1, 6.0, 6.0], [5.0, 5.0, 5.1, 5.0, 5.0]),  # a clock that rose at first
        ([], []),
    ],
)
def test_reference_loops_that_hardly_change_are_no_reason(before, after):
    assert check(beside(before, after)) == ()


def test_one_interrupted_sample_in_many_is_no_reason():
    assert check(run_of([*steady(199), 2_100_000])) == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("steady", ["other work kept 2.0 of 2 cores busy before the start"]),
        (
            "busy",
            [
                "the latency varies by 29% (standard deviation / mean), more than 10%",
                "the last third of the samples is +55% against the first",
                "other work kept 2.0 of 2 cores busy before the start",
            ],
        ),
    ],
)
def test_recorded_measurements_are_judged_as_they_were(name, expected):
    report = Report.load(GOLDEN / f"report_1_{name}.json")
    run = run_of(
        report.figures["latency"].samples,
        tuple(int(sample) for sample in report.figures["warmup"].samples),
        **report.conditions_before,
    )
    assert check(run) == report.untrusted
    assert reasons(run) == expected
