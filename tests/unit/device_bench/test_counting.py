"""Reading the plugin's counts, and how counted runs become reports, without an emulator."""

import json

import pytest

from phonefit.device_bench.bench import report_of
from phonefit.device_bench.compare import UnlikeReportsError, compare
from phonefit.device_bench.device import DeviceError, Job, MeasurementError
from phonefit.device_bench.emulator.counting import CountingDevice, parse_totals, raw_run
from phonefit.device_bench.emulator.latency_model import TERMS, core_named
from phonefit.device_bench.native_runner import parse_result
from phonefit.device_bench.report import Report
from tests.unit.device_bench.test_native_runner import RESULT

CORE = core_named("cortex-a76")
CLASSES = ("integer", "branch", "memory", "simd_multiply", "simd_other")
# Instructions of each class since the start, at each mark: before and after the load, before the first of three
# inferences (one warm-up), and after each.
AT = {0: 1000, 1: 3000, 2: 3100, 10: 5000, 11: 6500, 12: 8000}


def line(mark, each):
    classes = dict.fromkeys(CLASSES, each)
    caches = {"l1_misses": each // 10, "l2_misses": each // 100, "l3_misses": each // 500}
    memory = {"resident_bytes": 4096 * each, "peak_bytes": 4096 * each + 8192}
    totals = {"instructions": 5 * each, **classes, "read_bytes": 8 * each, "written_bytes": each, **caches, **memory}
    return json.dumps({"mark": mark, **totals})


TEXT = "\n".join(line(mark, each) for mark, each in AT.items()) + "\n"


@pytest.fixture
def job(tmp_path):
    model = tmp_path / "model.tflite"
    model.write_bytes(b"model")
    return Job(model=model, runtime="tflite")


def counted_run(text=TEXT):
    return raw_run(parse_result(json.dumps(RESULT)), parse_totals(text), CORE)


def counted_report(job) -> Report:
    return report_of(job, counted_run(), CountingDevice().info(), "0" * 64)


def test_counts_are_those_between_two_marks_with_the_warm_up_apart():
    run = counted_run()
    assert run.counts["instructions"] == (5 * 1500, 5 * 1500)
    assert run.counts["simd_multiply_instructions"] == (1500, 1500)
    assert run.counts["read_bytes"] == (12000, 12000)
    assert run.load_counts["branch_instructions"] == 2000
    assert len(run.warmup_nanoseconds) == 1 and run.warmup_nanoseconds[0] > run.sample_nanoseconds[0]


def test_times_are_modelled_from_the_counts_and_memory_is_counted():
    run = counted_run()
    first = {name: run.counts[name][0] for name in TERMS}
    assert run.sample_nanoseconds[0] == CORE.nanoseconds(first)
    assert run.load_nanoseconds == CORE.nanoseconds(run.load_counts)
    assert (run.latency_source, run.memory_source) == ("modelled", "counted")
    assert (run.baseline_bytes, run.peak_bytes) == (4096 * 1000, 4096 * 8000 + 8192)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json\n",
        TEXT.replace('"read_bytes"', '"read_words"'),
        "".join(TEXT.splitlines(keepends=True)[:-1]),
        "".join(TEXT.splitlines(keepends=True)[1:]),
    ],
    ids=["empty", "text", "unknown count", "an inference without a mark", "no start"],
)
def test_counts_that_do_not_fit_the_run_are_a_failed_measurement(text):
    with pytest.raises(MeasurementError, match="unusable counts"):
        counted_run(text)


def test_a_report_says_what_is_counted_and_what_is_modelled(job, tmp_path):
    report = counted_report(job)
    sources = {name: (figure.source, figure.unit) for name, figure in report.figures.items()}
    assert sources["latency"] == sources["warmup"] == sources["load"] == ("modelled", "ns")
    assert sources["instructions"] == sources["load_instructions"] == ("counted", "instructions")
    assert sources["written_bytes"] == sources["peak_memory"] == ("counted", "bytes")
    assert sources["l2_misses"] == ("counted", "misses")
    assert sources["energy"] == ("modelled", "uJ") and "DRAM only" in report.figures["energy"].note
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report


def test_two_exact_samples_are_trusted(job):
    assert counted_report(job).trusted


def test_an_estimate_is_never_compared_with_a_measurement(job):
    counted = counted_report(job)
    figure = counted.figures["latency"].model_copy(update={"source": "measured"})
    measured = counted.model_copy(update={"figures": {**counted.figures, "latency": figure}})
    with pytest.raises(UnlikeReportsError, match="latency is modelled ns against measured ns"):
        compare(counted, measured)


def test_two_counted_files_are_compared(job):
    comparison = compare(counted_report(job), counted_report(job).model_copy(update={"runtime": "executorch"}))
    assert comparison.median_ratio == 1.0
    rows = {row.name: row.first for row in comparison.rows}
    assert rows["instructions"] == "0.007 M"
    assert rows["bytes read"] == "0.012 MB"
    assert rows["L2 misses"] == "0.015 k"


def test_a_count_that_one_of_two_reports_lacks_has_no_row(job):
    counted = counted_report(job)
    figures = {name: figure for name, figure in counted.figures.items() if name != "l2_misses"}
    names = [row.name for row in compare(counted, counted.model_copy(update={"figures": figures})).rows]
    assert "instructions" in names and "L2 misses" not in names


def test_notes_of_modelled_times_say_what_they_are_made_from(job):
    report = counted_report(job)
    for name in ("latency", "load"):
        assert "from instructions and cache misses with coefficients published for" in report.figures[name].note


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"threads": 2}, "one thread, but 2"),
        ({"memory_limit_bytes": 2**20}, "memory limit"),
        ({"duration_seconds": 1.0}, "leave the duration out"),
        ({"cpu_mask": 6}, "core 0 only"),
    ],
)
def test_what_cannot_be_counted_is_refused_before_any_work(job, setting, said):
    with pytest.raises(DeviceError, match=said):
        CountingDevice().run(job.model_copy(update=setting))


def test_without_the_build_the_message_says_how_to_get_it(job, tmp_path):
    with pytest.raises(DeviceError, match=r"emulator:counts: .*(make emulator|apt-get install)"):
        CountingDevice(root=tmp_path).run(job)
