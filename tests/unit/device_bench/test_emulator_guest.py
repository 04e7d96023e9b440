"""What is said to the guest and what it answers."""

import pytest

from phonefit.device_bench.device import MeasurementError
from phonefit.device_bench.emulator.guest import limited, memory_use, processor_of

EVENTS = "low=0 high=0 max=98 oom=1 oom_kill=1 oom_group_kill=0"


def test_the_figures_follow_what_the_program_said():
    use, said = memory_use(
        f"hello\nphonefit-memory: in the text\n\nphonefit-memory: code=137 stalled=0 peak=20971520 {EVENTS} \n"
    )
    assert said == "hello\nphonefit-memory: in the text\n"
    assert (use.exit_code, use.peak_bytes, use.limit_hits, use.oom_kills) == (137, 20971520, 98, 1)
    assert use.out_of_memory


def test_a_limit_that_was_only_reached_ended_nothing():
    use, said = memory_use("\nphonefit-memory: code=0 stalled=0 peak=8388608 low=0 high=0 max=46 oom=0 oom_kill=0\n")
    assert said == "" and use.limit_hits == 46 and not use.out_of_memory


def test_one_that_only_waited_for_its_pages_was_out_of_memory_too():
    use, _ = memory_use("\nphonefit-memory: code=137 stalled=1 peak=8388608 low=0 high=0 max=460 oom=0 oom_kill=0\n")
    assert use.out_of_memory and use.oom_kills == 0


@pytest.mark.parametrize("answer", ["", "hello\n", "\nphonefit-memory: code=0 peak= \n"])
def test_missing_figures_are_an_error_that_shows_the_answer(answer):
    with pytest.raises(MeasurementError, match="no memory figures"):
        memory_use(answer)


def test_arguments_stay_whole():
    command = limited(["tool", "--input", "a b;$(c)"], 1000)
    assert command[-3:] == ["tool", "--input", "a b;$(c)"]
    assert command[-4] == "1000"
    assert limited(["tool"], None)[-2:] == ["max", "tool"]


def test_the_core_is_named_by_its_numbers():
    cpuinfo = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\n"
    assert processor_of(cpuinfo) == "Cortex-A76"
    assert processor_of("processor : 0\nCPU part : 0xfff\n") == ""
