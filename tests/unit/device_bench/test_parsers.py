"""Transcripts of several versions of Android, each with both kinds of line ends."""

from pathlib import Path

import pytest

from phonefit.device_bench.parsers import (
    ParseError,
    parse_am_start,
    parse_cpufreq,
    parse_df,
    parse_getprop,
    parse_identity,
    parse_logcat,
    parse_meminfo,
    parse_process_memory,
)
from phonefit.device_bench.power_parsers import (
    parse_battery,
    parse_battery_capacity,
    parse_power_supply,
    parse_thermal,
)

TRANSCRIPTS = Path(__file__).parent / "transcripts"
KIB = 1024


@pytest.fixture(params=["\n", "\r\n", "\r\r\n"], ids=["LF", "CRLF", "CRCRLF"])
def transcript(request):
    def read(name):
        return (TRANSCRIPTS / f"{name}.txt").read_text().replace("\n", request.param)

    return read


@pytest.mark.parametrize(
    ("name", "version", "sdk", "model", "soc"),
    [
        ("getprop_9", "9", 28, "Pixel 3", "sdm845"),
        ("getprop_11", "11", 30, "SM-A515F", "exynos9611"),
        ("getprop_15", "15", 35, "Pixel 8", "Google Tensor G3"),
    ],
)
def test_a_phone_is_identified_on_each_version(transcript, name, version, sdk, model, soc):
    identity = parse_identity(transcript(name))
    assert (identity.android_version, identity.sdk, identity.model, identity.soc) == (version, sdk, model, soc)
    assert identity.abi == "arm64-v8a" and identity.fingerprint.endswith("release-keys")


def test_a_property_over_two_lines_or_without_value_is_kept(transcript):
    assert parse_getprop(transcript("getprop_9"))["persist.sys.boot.reason.history"].split() == [
        "reboot,1571310531",
        "reboot,1571300000",
    ]
    assert parse_getprop(transcript("getprop_15"))["ro.vendor.empty"] == ""


def test_what_is_no_android_is_not_identified():
    with pytest.raises(ParseError, match=r"getprop: cannot be read.*not found"):
        parse_identity("/bin/sh: getprop: not found")


def test_memory_of_the_device(transcript):
    memory = parse_meminfo(transcript("meminfo_15"))
    assert memory.total_bytes == 7682364 * KIB and memory.available_bytes == 3127704 * KIB
    assert memory.swap_total_bytes - memory.swap_free_bytes == 1033472 * KIB
    # MemAvailable came with Linux 3.14
    assert parse_meminfo(transcript("meminfo_kernel_3_4")).available_bytes is None
    with pytest.raises(ParseError):
        parse_meminfo("")


def test_memory_of_a_process_before_and_since_android_11(transcript):
    old = parse_process_memory(transcript("process_memory_9"))
    assert (old.pss_bytes, old.private_dirty_bytes) == (27430 * KIB, 24596 * KIB)
    assert old.swap_pss_bytes == 102 * KIB and old.rss_bytes is None
    new = parse_process_memory(transcript("process_memory_13"))
    assert (new.pss_bytes, new.rss_bytes, new.swap_pss_bytes) == (72353 * KIB, 45900 * KIB, 66673 * KIB)


def test_memory_of_a_process_that_is_gone(transcript):
    with pytest.raises(ParseError, match="No process found for"):
        parse_process_memory(transcript("process_memory_none"))


def test_a_battery_on_usb_is_charging(transcript):
    battery = parse_battery(transcript("battery_9"))
    assert battery.charging and battery.plugged == ("USB",) and battery.status == "charging"
    assert (battery.level_percent, battery.temperature_celsius, battery.volts) == (85, 27.4, 4.191)
    assert battery.charge_microampere_hours == 2441250 and not battery.faked


def test_a_battery_that_discharges(transcript):
    battery = parse_battery(transcript("battery_11"))
    assert not battery.charging and battery.status == "discharging"
    # the gauge does not count
    assert battery.charge_microampere_hours is None


def test_a_full_battery_on_a_wireless_pad_is_charging(transcript):
    battery = parse_battery(transcript("battery_13"))
    assert battery.charging and battery.plugged == ("Wireless",)


def test_a_faked_state_is_seen_and_the_event_log_below_is_not_the_state(transcript):
    battery = parse_battery(transcript("battery_15"))
    assert battery.faked and battery.level_percent == 75 and battery.status == "not charging"


def test_a_device_without_a_battery():
    with pytest.raises(ParseError, match="dumpsys battery"):
        parse_battery("Can't find service: battery\n")


@pytest.mark.parametrize(("printed", "volts"), [("4191", 4.191), ("4191000", 4.191), ("4", 4.0), ("0", None)])
def test_voltage_in_any_unit_that_phones_use(printed, volts):
    assert parse_battery(f"  level: 50\n  voltage: {printed}\n").volts == volts


def test_the_kernels_own_battery_file(transcript):
    supply = parse_power_supply(transcript("uevent_13"))
    assert (supply.current_raw, supply.microvolts, supply.status) == (-412500, 3871250, "discharging")
    assert (supply.full_microampere_hours, supply.design_microampere_hours) == (4355000, 4575000)
    with pytest.raises(ParseError, match="Permission denied"):
        parse_power_supply("cat: /sys/class/power_supply/battery/uevent: Permission denied")


def test_capacity_as_learned_else_as_estimated(transcript):
    assert parse_battery_capacity(transcript("batterystats_13")) == 4236000
    assert parse_battery_capacity(transcript("batterystats_9")) == 2915000
    assert parse_battery_capacity("") is None


def test_temperatures_are_the_current_ones_and_only_temperatures(transcript):
    thermal = parse_thermal(transcript("thermal_13"))
    assert thermal.status == 2
    assert [(item.name, item.kind, item.celsius) for item in thermal.temperatures] == [
        ("BIG", "CPU", 71.500004),
        ("VIRTUAL-SKIN", "skin", 44.1),
        ("battery", "battery", 36.6),
    ]


def test_cached_temperatures_where_the_hardware_gives_none(transcript):
    thermal = parse_thermal(transcript("thermal_11"))
    assert thermal.status == 0 and {item.name for item in thermal.temperatures} == {"CPU", "BATTERY"}


def test_a_sensor_without_a_value_is_left_out(transcript):
    assert {item.name for item in parse_thermal(transcript("thermal_15")).temperatures} == {"VIRTUAL-SKIN", "TPU"}


def test_before_android_10_there_is_no_thermal_status(transcript):
    with pytest.raises(ParseError, match="Can't find service"):
        parse_thermal(transcript("thermal_9"))


def test_clocks_by_core_in_the_order_of_cores(transcript):
    clocks = parse_cpufreq(transcript("cpufreq"))
    assert [clock.core for clock in clocks] == [0, 8, 10]
    assert (clocks[0].now_kilohertz, clocks[0].governor) == (1704000, "sched_pixel")
    # the shell may not read every file
    assert clocks[2].now_kilohertz is None and clocks[2].most_kilohertz == 2914000
    assert parse_cpufreq("") == ()


@pytest.mark.parametrize("name", ["df_15", "df_busybox"])
def test_free_space(transcript, name):
    (system,) = parse_df(transcript(name))
    assert (system.available_bytes, system.mounted_on) == (14601992 * KIB, "/data")


def test_df_of_nothing():
    with pytest.raises(ParseError, match="No such file"):
        parse_df("df: /nowhere: No such file or directory\n")


def test_log_lines(transcript):
    first, crash, colons = parse_logcat(transcript("logcat"))
    assert (first.pid, first.level, first.tag) == (1392, "I", "ActivityTaskManager")
    assert crash.level == "F" and crash.tag == "DEBUG" and crash.text.endswith("<<<")
    # a tag seldom holds a colon, a message often does
    assert (colons.tag, colons.text) == ("tag with", "colon: text: more")


def test_log_lines_with_year_zone_and_user(transcript):
    (line,) = parse_logcat(transcript("logcat_year_uid"))
    assert (line.time, line.pid, line.tid) == ("2026-01-18 09:14:03.881 +0100", 1392, 1441)


def test_a_started_app_before_and_since_android_10(transcript):
    old, new = parse_am_start(transcript("am_start_9")), parse_am_start(transcript("am_start_13"))
    assert old.ok and (old.launch_state, old.total_milliseconds, old.wait_milliseconds) == ("", 387, 402)
    assert new.ok and (new.launch_state, new.total_milliseconds, new.complaint) == ("COLD", 421, "")


def test_an_app_that_does_not_start_in_time_or_is_missing(transcript):
    assert not parse_am_start(transcript("am_start_timeout")).ok
    missing = parse_am_start(transcript("am_start_missing"))
    assert not missing.ok and "does not exist" in missing.complaint
