"""A phone as a test sees it: scripted Android programs, and a native runner that is a shell script."""

import textwrap
from pathlib import Path

from phonefit.device_bench.device import Job

TRANSCRIPTS = Path(__file__).parents[1] / "unit" / "device_bench" / "transcripts"

# The command line of the native runners, the result of a model with one input and two outputs.
RUNNER = """
    #!/bin/sh
    [ "$1" = --model ] && [ "$3" = --result ] || exit 2
    model=$2 result=$4; shift 4
    outputs= input=random
    while [ $# -gt 0 ]; do
        case $1 in
            --output) outputs="$outputs $2"; shift 2 ;;
            --input) input=$2; shift 2 ;;
            --warmups) warmups=$2; shift 2 ;;
            --repeats) repeats=$2; shift 2 ;;
            *) shift 2 ;;
        esac
    done
    numbers() { i=0; while [ $i -lt $1 ]; do [ $i = 0 ] || printf ', '; printf 1000%d $((i % 10)); i=$((i + 1)); done; }
    for output in $outputs; do cat "$input" > "$output"; done
    cat > "$result" <<END
    {"schema": 1, "runtime": "onnx", "version": "1.32.0", "threads": 1, "load_ns": 5000,
     "warmup_ns": [$(numbers $warmups)], "sample_ns": [$(numbers $repeats)], "baseline_bytes": 1000, "peak_bytes": 3000,
     "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 4]}],
     "outputs": [{"name": "y", "dtype": "float32", "shape": [4]}, {"name": "z", "dtype": "uint8", "shape": [16]}]}
    END
"""


def transcript(name: str) -> str:
    return (TRANSCRIPTS / f"{name}.txt").read_text()


def become_phone(stand_in, version: int = 15) -> None:
    """Let the stand-in answer as a phone that is cool and well charged; the kernel's files are this machine's own."""
    battery = transcript("battery_9")
    stand_in.replies |= {
        "getprop": transcript(f"getprop_{version}"),
        "cat /proc/meminfo": transcript("meminfo_15"),
        "cat /sys/devices/system/cpu/possible": "0-8\n",
        "dumpsys battery": battery,
        "dumpsys thermalservice": transcript("thermal_15" if version >= 11 else "thermal_9"),
        "svc": lambda arguments: stay_on(stand_in, arguments),
        "cmd": lambda arguments: (0, ""),
    }


def stay_on(stand_in, arguments) -> tuple[int, str]:
    """`svc power stayon`: sets what `settings` reads."""
    stand_in.settings["stay_on_while_plugged_in"] = "7" if arguments[-1] == "true" else "0"
    return 0, ""


def runner_folder(folder: Path, script: str = RUNNER) -> Path:
    """A runner's folder as the build makes it; returns the program."""
    program = folder / "android-arm64-v8a" / "bin" / "phonefit_onnx"
    program.parent.mkdir(parents=True)
    program.write_text(textwrap.dedent(script).lstrip())
    library = folder / "android-arm64-v8a" / "lib" / "libonnxruntime.so"
    library.parent.mkdir()
    library.write_bytes(b"\x7fELF" + bytes(range(256)) * 64)
    return program


def small_job(folder: Path, **settings) -> Job:
    """A job on a file that only the shell script above takes for a model."""
    model = folder / "model.onnx"
    model.write_bytes(b"weights" * 1000)
    return Job(model=model, runtime="onnx", **{"warmups": 2, "repeats": 12, "timeout_seconds": 30, **settings})
