"""The counting tier on the real emulator: exact, repeatable, and right where the answer is known.

Needs `make emulator`.
"""

import subprocess

import numpy as np
import pytest

from phonefit.device_bench.bench import bench
from phonefit.device_bench.device import Job, MeasurementError
from phonefit.device_bench.devices import list_devices, open_device
from phonefit.device_bench.emulator.counting import counts_folder, emulation, parse_totals
from phonefit.device_bench.emulator.latency_model import core_named
from phonefit.device_bench.runtimes import RUNTIMES, runtime_module
from phonefit.models.artifact import SUFFIXES
from phonefit.models.errors import FileFormatError
from tests.foreign_models import WIDE_BYTES, quantised_tflite, small_input, small_model, wide_model

pytestmark = pytest.mark.emulator
COMPILER = "aarch64-linux-gnu-gcc"


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request):
    return request.param


@pytest.fixture
def device():
    return open_device("emulator:counts")


def job(model, runtime, **settings):
    return Job(model=model, runtime=runtime, **settings)


def test_it_is_listed_and_identifies_itself_as_no_other_device_does():
    devices = {line.name: line.info for line in list_devices()}
    info = devices["emulator:counts"]
    assert (info.kind, info.architecture, info.cores) == ("emulator", "aarch64", 1)
    assert not info.like(devices["host"])


def test_three_runs_give_the_same_counts(device, runtime, tmp_path):
    model = small_model(tmp_path, runtime)
    runs = [device.run(job(model, runtime)) for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0].counts["instructions"][0] > 10_000
    assert len(runs[0].warmup_nanoseconds) == 1 and len(runs[0].sample_nanoseconds) == 2


def test_the_name_and_place_of_a_file_do_not_show_in_its_counts(device, tmp_path):
    model = quantised_tflite(tmp_path)
    other = tmp_path / "a folder with a long name" / "and-a-file-with-a-longer-one.tflite"
    other.parent.mkdir()
    other.write_bytes(model.read_bytes())
    assert device.run(job(model, "tflite")) == device.run(job(other, "tflite"))


def test_float_outputs_are_those_of_the_host(device, runtime, tmp_path):
    model = small_model(tmp_path, runtime)
    np.save(tmp_path / "in.npy", small_input(2))
    files = {"input_file": tmp_path / "in.npy", "output_file": tmp_path / "out.npz"}
    device.run(job(model, runtime, **files))
    (expected,) = runtime_module(runtime).load(model, threads=1).run([small_input(2)])
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["output_0"], expected, rtol=0, atol=1e-5)


def test_int8_outputs_are_those_of_the_host(device, tmp_path):
    model = quantised_tflite(tmp_path)
    session = runtime_module("tflite").load(model, threads=1)
    stored = np.random.default_rng(3).integers(-128, 128, session.inputs[0].shape, dtype=np.int8)
    np.save(tmp_path / "in.npy", stored)
    device.run(job(model, "tflite", input_file=tmp_path / "in.npy", output_file=tmp_path / "out.npz"))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["output_0"], session.run([stored])[0])


def test_a_constant_of_32_mebibytes_shows_in_the_counted_memory_and_bytes(device, runtime, tmp_path):
    small, wide = (device.run(job(make(tmp_path, runtime), runtime)) for make in (small_model, wide_model))
    difference = (wide.peak_bytes - wide.baseline_bytes) - (small.peak_bytes - small.baseline_bytes)
    assert WIDE_BYTES * 0.9 < difference < WIDE_BYTES * 3.5
    # each inference reads every weight once, and they fit no cache
    assert WIDE_BYTES <= wide.counts["read_bytes"][0] < WIDE_BYTES * 1.5
    assert wide.counts["l3_misses"][0] == pytest.approx(WIDE_BYTES / 64, rel=0.1)


def test_a_report_is_trusted_after_one_attempt(tmp_path):
    report = bench(quantised_tflite(tmp_path), device="emulator:counts")
    assert report.trusted and report.settings["attempts"] == 1
    assert report.figures["latency"].source == "modelled"
    assert report.median_milliseconds() > 0
    assert report.versions.keys() == {"ai-edge-litert", "qemu"}


def test_a_bad_file_is_refused_as_such(device, runtime, tmp_path):
    path = tmp_path / f"model{SUFFIXES[runtime]}"
    path.write_text("no model at all")
    with pytest.raises(FileFormatError, match="text file"):
        device.run(job(path, runtime))


def test_a_file_that_only_looks_whole_is_refused_or_failed_with_the_runtimes_words(device, tmp_path):
    path = small_model(tmp_path, "onnx")
    path.write_bytes(path.read_bytes().replace(b"Gemm", b"Gexx"))
    with pytest.raises((FileFormatError, MeasurementError), match="Gexx"):
        device.run(job(path, "onnx"))


def test_a_crash_of_the_runtime_is_a_failed_measurement(device, tmp_path):
    path = small_model(tmp_path, "executorch")
    # the name of the XNNPACK payload is no text any more: the runtime's own error message makes it abort
    path.write_bytes(path.read_bytes().replace(b"XH00", b"\xa7H00"))
    with pytest.raises(MeasurementError) as caught:
        device.run(job(path, "executorch"))
    assert caught.value.exit_code == 3


def test_an_emulation_that_takes_too_long_is_ended(device, tmp_path):
    with pytest.raises(MeasurementError, match=r"no result .* after 0\.05 s"):
        device.run(job(small_model(tmp_path, "onnx"), "onnx", timeout_seconds=0.05))


# ---- the plugin itself, on programs whose counts are known ----

MARK = "mov x8, #20000\nadd x8, x8, #{}\nsvc #0\n"
EXIT = "mov x0, #0\nmov x8, #93\nsvc #0\n"


def totals(folder, *parts):
    """Totals at each mark of an assembly program: `parts`, with the marks 0, 1, 2, … before and between them."""
    body = "".join(MARK.format(number) + part for number, part in enumerate((*parts, "")))
    (folder / "program.s").write_text(f".arch armv8.2-a+dotprod\n.globl _start\n_start:\n{body}{EXIT}")
    subprocess.run([COMPILER, "-nostdlib", "-static", "-o", "program", "program.s"], cwd=folder, check=True)
    line, environment = emulation(folder, core_named("cortex-a76"), None, counts_folder(), "counts")
    subprocess.run([*line, "./program"], cwd=folder, env=environment, check=True)
    found = parse_totals((folder / "counts").read_text())
    return [found[number] for number in range(len(parts) + 1)]


def loop(times, body):
    return f"mov x9, #{times}\n1:\n{body}\nsubs x9, x9, #1\nb.ne 1b\n"


BY_CLASS = {
    "integer": ("add x1, x2, x3", "madd x1, x2, x3, x4", "eor w1, w2, w3", "lsl x1, x2, #3", "adr x1, ."),
    "branch": ("nop", "bl 2f\n2:"),
    "memory": ("ldr x1, [sp]", "str q1, [sp, #-64]", "ldp q1, q2, [sp, #-64]", "ld1 {v1.16b}, [sp]", "ldr s1, [sp]"),
    "simd_multiply": (
        "fmla v1.4s, v2.4s, v3.4s",
        "fmla v1.4s, v2.4s, v3.s[1]",
        "fmul v1.4s, v2.4s, v3.4s",
        "mla v1.8h, v2.8h, v3.8h",
        "mul v1.16b, v2.16b, v3.16b",
        "smull v1.8h, v2.8b, v3.8b",
        "smlal2 v1.4s, v2.8h, v3.8h",
        "smlal v1.4s, v2.4h, v3.h[2]",
        "sdot v1.4s, v2.16b, v3.16b",
        "sdot v1.4s, v2.16b, v3.4b[1]",
        "sqrdmulh v1.4s, v2.4s, v3.4s",
        "fmadd s1, s2, s3, s4",
        "fmul d1, d2, d3",
    ),
    "simd_other": (
        "fadd v1.4s, v2.4s, v3.4s",
        "add v1.16b, v2.16b, v3.16b",
        "fmax v1.4s, v2.4s, v3.4s",
        "smax v1.16b, v2.16b, v3.16b",
        "saddl v1.8h, v2.8b, v3.8b",
        "sshr v1.4s, v2.4s, #3",
        "sqxtn v1.4h, v2.4s",
        "zip1 v1.16b, v2.16b, v3.16b",
        "dup v1.4s, v2.s[0]",
        "fcvtns v1.4s, v2.4s",
        "fadd s1, s2, s3",
        "fmov x1, d1",
        "movi v1.4s, #0",
        "srshl v1.4s, v2.4s, v3.4s",
        "fdiv v1.4s, v2.4s, v3.4s",
    ),
}


@pytest.mark.parametrize("kind", BY_CLASS)
def test_each_instruction_is_of_its_class(kind, tmp_path):
    # one part for each instruction, so that a wrong class is told by its instruction
    found = totals(tmp_path, *("\n".join([text] * 7) + "\n" if ":" not in text else text for text in BY_CLASS[kind]))
    empty = {"integer": 2, "branch": 1}  # making a mark
    for text, before, after in zip(BY_CLASS[kind], found, found[1:], strict=False):
        counts = {name: getattr(after, name) - getattr(before, name) - empty.get(name, 0) for name in BY_CLASS}
        times = 1 if ":" in text else 7
        assert counts == {name: times if name == kind else 0 for name in BY_CLASS}, text


def test_a_loop_counts_as_often_as_it_runs(tmp_path):
    before, once, thrice = totals(tmp_path, *(loop(times, "fmla v1.4s, v2.4s, v3.4s") for times in (1000, 3000)))
    assert once.simd_multiply - before.simd_multiply == 1000
    assert once.instructions - before.instructions == 3 * 1000 + 4  # setting the counter, and making the mark
    assert thrice.instructions - once.instructions == 3 * 3000 + 4


LOOK_AT_THE_CLOCK = "mov x0, #1\nsub x1, sp, #64\nmov x8, #113\nsvc #0\nldr x{}, [sp, #-56]\n"


def test_time_goes_on_by_a_microsecond_a_look_however_busy_the_host_is(tmp_path):
    looks = LOOK_AT_THE_CLOCK.format(21) + LOOK_AT_THE_CLOCK.format(22)
    # as often as there are microseconds between two looks, of which there is one
    wait = "sub x9, x22, x21\n2:\nfmul d1, d2, d3\nsubs x9, x9, #1000\nb.gt 2b\n"
    start, end, _ = totals(tmp_path, looks + wait, "")
    assert end.simd_multiply - start.simd_multiply == 1


def walk(first, step, count, instruction="ldr w1, [x10]"):
    return f"mov x10, #{first}\nadd x10, x10, x20\n" + loop(count, f"{instruction}\nadd x10, x10, #{step}")


# mmap of 4 MiB of zeroed memory, to x20
MAP = (
    "mov x0, #0\nmov x1, #0x400000\nmov x2, #3\nmov x3, #0x22\nmov x4, #-1\nmov x5, #0\n"
    "mov x8, #222\nsvc #0\nmov x20, x0\n"
)
UNMAP = "mov x0, x20\nmov x1, #0x400000\nmov x8, #215\nsvc #0\n"


def test_bytes_and_cache_misses_of_a_walk_through_memory(tmp_path):
    lines = 2**20 // 64
    mapped, first, second, few, again = totals(
        tmp_path,
        MAP + walk(0, 64, lines, "ldr q1, [x10]"),  # 1 MiB: new to every level
        walk(0, 64, lines, "str w1, [x10]"),  # still in the L3, too much for the L2
        walk(0, 64, 512),  # 32 KiB of it, into the L1
        walk(0, 64, 512),
    )
    assert first.read_bytes - mapped.read_bytes == 16 * lines
    assert first.l1_misses - mapped.l1_misses == first.l3_misses - mapped.l3_misses == lines
    assert second.written_bytes - first.written_bytes == 4 * lines
    assert second.l2_misses - first.l2_misses == lines and second.l3_misses == first.l3_misses
    assert few.l1_misses - second.l1_misses == 512
    assert again.l1_misses == few.l1_misses


def test_an_access_across_a_line_is_an_access_to_both(tmp_path):
    start, inside, across = totals(tmp_path, MAP + walk(0, 64, 1), walk(4096 + 60, 64, 1, "ldr x1, [x10]"))
    assert inside.l1_misses - start.l1_misses == 1
    assert across.l1_misses - inside.l1_misses == 2


def test_memory_is_what_was_touched_and_not_given_back(tmp_path):
    start, mapped, touched, unmapped = totals(tmp_path, MAP, walk(0, 4096, 100), UNMAP)
    assert mapped.resident_bytes == start.resident_bytes  # address space alone is no memory
    assert touched.resident_bytes - mapped.resident_bytes == 100 * 4096
    assert unmapped.resident_bytes == start.resident_bytes
    assert unmapped.peak_bytes == touched.resident_bytes
