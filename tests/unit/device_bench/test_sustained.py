import pytest

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.sustained import parse_duration, sustained

MILLISECOND, SECOND = 1e6, 1e9


def constant(milliseconds, seconds):
    return [milliseconds * MILLISECOND] * round(seconds * 1000 / milliseconds)


def test_a_phone_that_throttles_after_three_minutes():
    result = sustained(constant(20, 180) + constant(40, 420))
    assert (result.first.median_milliseconds, result.last.median_milliseconds) == (20, 40)
    assert result.throttling_ratio == 2 and result.throttled_after_seconds == 180
    assert len(result.windows) == 10 and result.last.start_seconds == pytest.approx(540)


def test_a_phone_that_keeps_its_speed():
    result = sustained(constant(25, 150))
    assert result.throttling_ratio == 1 and result.throttled_after_seconds is None
    # half a minute is over; the last minute still is a whole one
    assert len(result.windows) == 2 and result.last.start_seconds == 90


def test_a_phone_that_recovers_is_not_called_throttled():
    result = sustained(constant(20, 60) + constant(30, 60) + constant(20, 60))
    assert result.throttled_after_seconds is None and result.windows[1].median_milliseconds == 30


def test_pauses_between_inferences_count_as_time():
    samples = [10 * MILLISECOND] * 13
    result = sustained(samples, [10 * SECOND * (index + 1) for index in range(13)])
    assert result.first.samples == 6 and len(result.windows) == 2


def test_a_run_that_is_too_short_or_too_slow_is_refused():
    with pytest.raises(DeviceError, match=r"took 90\.0 s; it needs 120 s"):
        sustained(constant(20, 90))
    with pytest.raises(DeviceError, match="no inference ended between"):
        sustained([100 * SECOND, 100 * SECOND])
    with pytest.raises(DeviceError, match="2 samples but 1 end times"):
        sustained([1, 1], [1])


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("30", 30)])
def test_durations_in_words(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "0m", "-3s", "2m10s"])
def test_what_is_no_duration(text):
    with pytest.raises(DeviceError, match="is not a duration"):
        parse_duration(text)
