"""The samplers' command lines in the shells that there are; Android's is mksh."""

import shutil
import subprocess

import pytest

from phonefit.device_bench.energy_run import parse_gauge_log
from phonefit.device_bench.power_sampling import SysfsSource, await_begin, await_end, gauge_sampler, rail_config

SHELLS = [shell for shell in ("sh", "bash", "dash", "mksh", "ksh") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_sampler_lets_go_of_the_shell_that_starts_it_and_ends_without_its_flag(shell, tmp_path):
    (tmp_path / "current_now").write_text("-300000\n")
    (tmp_path / "voltage_now").write_text("3900000\n")
    flag, log = tmp_path / "a flag", tmp_path / "a log"
    log.write_text("1 2 3\nend\n")  # of an earlier sampler

    def run(line):
        # with pipes, as adbd: it returns only when nobody holds them any more
        return subprocess.run([shell, *line[1:]], capture_output=True, timeout=60, check=True)

    try:
        run(gauge_sampler(SysfsSource(folder=str(tmp_path), interval_seconds=0.01), str(flag), str(log)))
        run(await_begin(str(log)))
        assert not log.read_text().endswith("end\n")
    finally:
        flag.unlink()
    run(await_end(str(log)))
    readings = parse_gauge_log(log.read_text())
    assert {(reading.current_raw, reading.microvolts) for reading in readings} == {(-300_000, 3_900_000)}


def test_the_rails_are_asked_for_often_enough():
    assert "battery_poll_ms: 250 collect_power_rails: true" in rail_config(60)
    assert rail_config(60).startswith("duration_ms: 60000 ")
