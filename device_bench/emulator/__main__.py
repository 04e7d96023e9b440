"""Build, start, find and stop the emulated phone: `python -m phonefit.device_bench.emulator start ram=4G`."""

import argparse
import sys
import time

from phonefit.device_bench.emulator.image import build_image, default_cache
from phonefit.device_bench.emulator.machine import Machine, MachineState, parse_options
from phonefit.models.errors import PhonefitError


def main(arguments: list[str]) -> int:
    """Do one action; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m phonefit.device_bench.emulator", description=__doc__)
    parser.add_argument("action", choices=("build", "start", "status", "stop"))
    parser.add_argument("options", nargs="?", default="", help="as in emulator:OPTIONS, for example ram=4G")
    chosen = parser.parse_args(arguments)
    try:
        sys.stdout.write(f"{_do(chosen.action, chosen.options)}\n")
    except PhonefitError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _do(action: str, options: str) -> str:
    cache, begin = default_cache(), time.monotonic()
    if action == "build":
        image = build_image(cache)
        return f"image with kernel {image.kernel_version} in {cache} ({time.monotonic() - begin:.1f} s)"
    machine = Machine(cache, parse_options(options))
    if action == "start":
        return _running(machine.start())
    if action == "stop":
        return "stopped" if machine.stop() else "not running"
    state = machine.find()
    return _running(state) if state else "not running"


def _running(state: MachineState) -> str:
    ram = state.options.ram_bytes // 2**20
    return f"running: adb serial {state.serial}, {ram} MiB, process {state.process}, QEMU {state.emulator_version}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
