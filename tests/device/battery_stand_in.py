"""BatteryStandIn, and a stand-in for `perfetto`: what a phone's gauge and power rails tell, for the adb stand-in.

Both follow one model: the phone draws a steady power while it idles and a higher one while a file says that it is busy,
with noise. They are no phone: what they show is that sampling, windows and arithmetic give back the model's truth.
"""

import random
import sys
import textwrap
import threading
from pathlib import Path

VOLTS = 4.0
IDLE_MILLIAMPERES, BUSY_MILLIAMPERES, NOISE_MILLIAMPERES = 300.0, 900.0, 30.0
BUSY_WATTS = (BUSY_MILLIAMPERES - IDLE_MILLIAMPERES) * VOLTS / 1e3
DESIGN_MILLIAMPERE_HOURS = 4000
SUPPLY = "/sys/class/power_supply/battery"
_STEP_SECONDS = 0.005

# The command line of the native runners; inferences of equal length fill the seconds that are asked for. It goes on
# only when the model of the battery has seen that it is busy.
ENERGY_RUNNER = """
    #!/bin/sh
    result=$4; shift 4
    seconds=
    while [ $# -gt 0 ]; do
        case $1 in
            --seconds) seconds=$2; shift 2 ;;
            *) shift 2 ;;
        esac
    done
    now() {{ read -r t rest < /proc/uptime; echo "${{t%.*}}${{t#*.}}0000000"; }}
    times=
    if [ -n "$seconds" ]; then
        : > {busy}
        until [ -e {busy}.seen ]; do sleep 0.01; done
        from=$(now); sleep "$seconds"; until=$(now)
        rm {busy}
        each=$(( (until - from) / 20 ))
        [ {tells_times} = no ] || times="\\"timed_from_ns\\": $from, \\"timed_until_ns\\": $until,"
    else
        each=1000
    fi
    samples=$each; i=1
    while [ $i -lt 20 ]; do samples="$samples, $each"; i=$((i+1)); done
    cat > "$result" <<END
    {{"schema": 1, "runtime": "onnx", "version": "1.32.0", "threads": 1, "load_ns": 5000, $times
     "warmup_ns": [$each], "sample_ns": [$samples], "baseline_bytes": 1000, "peak_bytes": 3000,
     "inputs": [{{"name": "x", "dtype": "float32", "shape": [1, 4]}}],
     "outputs": [{{"name": "y", "dtype": "float32", "shape": [4]}}]}}
    END
"""

# `perfetto` by its command line: configuration from standard input, trace written on SIGTERM or at the end of its time.
_PERFETTO = """
    #!{python}
    import random, re, signal, sys, time
    from pathlib import Path
    assert sys.argv[1:4] == ["--txt", "-c", "-"] and sys.argv[4] == "-o", sys.argv
    config, busy, noise = sys.stdin.read(), Path({busy!r}), random.Random(0)
    assert "android.power" in config and "collect_power_rails: true" in config
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    target = open(sys.argv[5], "wb")
    # a look is cut short: its samples do not count
    seconds = int(re.search(r"duration_ms: (\\d+)", config)[1]) / 1e3
    start = last = time.clock_gettime(time.CLOCK_BOOTTIME)
    energies, readings = [7e9, 5e9], []
    while not ended and (last - start < 0.1 or seconds > 10):
        time.sleep(0.02)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        working = busy.exists()
        watts = ({busy_milliamperes} if working else {idle_milliamperes}) * {volts} / 1e3 * noise.gauss(1, 0.03)
        for rail, share in enumerate((0.8, 0.2)):
            energies[rail] += share * watts * (now - last) * 1e6
        readings.append((round(now * 1e3), *map(round, energies)))
        seen = Path({busy!r} + ".seen")
        seen.touch() if working else seen.unlink(missing_ok=True)
        last = now
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace
    trace = Trace()
    if {has_rails}:
        rails = trace.packet.add().power_rails
        for index, name in enumerate(("S2M_VDD_CPUCL0", "S3M_VDD_MIF")):
            rails.rail_descriptor.add(index=index, rail_name=name, subsys_name="x", sampling_rate=1023)
        for moment, *values in readings:
            packet = trace.packet.add().power_rails
            for index, value in enumerate(values):
                packet.energy_data.add(index=index, timestamp_ms=moment, energy=value)
    target.write(trace.SerializeToString())
    target.close()
"""


class BatteryStandIn:
    """The kernel's files of a battery below a stand-in device, renewed until the end of the block.

    Args:
        supply: folder of the files, here.
        busy: file that says that the phone works.
        current_of_discharge: sign and unit: -1000 is µA with discharging negative, 1 is mA with discharging positive.
        tells_capacity: whether charge_full_design is there.
    """

    def __init__(
        self, supply: Path, busy: Path, current_of_discharge: float = -1000.0, tells_capacity: bool = True
    ) -> None:
        self._supply, self._busy, self._factor = supply, busy, current_of_discharge
        self._noise = random.Random(0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        supply.mkdir(parents=True)
        self._write("type", "Battery")
        self._write("status", "Discharging")
        self._write("voltage_now", f"{VOLTS * 1e6:.0f}")
        if tells_capacity:
            self._write("charge_full_design", str(DESIGN_MILLIAMPERE_HOURS * 1000))

    def __enter__(self) -> "BatteryStandIn":
        self._renew()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._ended.wait(_STEP_SECONDS):
            self._renew()

    def _renew(self) -> None:
        busy, seen = self._busy.exists(), self._busy.with_name(f"{self._busy.name}.seen")
        drain = (BUSY_MILLIAMPERES if busy else IDLE_MILLIAMPERES) + self._noise.gauss(0, NOISE_MILLIAMPERES)
        self._write("current_now", f"{drain * self._factor:.0f}")
        if busy:
            seen.touch()
        else:
            seen.unlink(missing_ok=True)

    def _write(self, name: str, value: str) -> None:
        # a reader sees the old value or the new one
        part = self._supply.parent / f".{name}"
        part.write_text(f"{value}\n")
        part.replace(self._supply / name)


def install_perfetto_stand_in(program: Path, busy: Path, has_rails: bool = True) -> None:
    """Put a program that records rails by the same model where the device finds `perfetto`."""
    program.parent.mkdir(parents=True, exist_ok=True)
    script = textwrap.dedent(_PERFETTO).lstrip().format(
        python=sys.executable, busy=str(busy), busy_milliamperes=BUSY_MILLIAMPERES, volts=VOLTS,
        idle_milliamperes=IDLE_MILLIAMPERES, has_rails=has_rails,
    )  # fmt: skip
    program.write_text(script)
    program.chmod(0o755)
