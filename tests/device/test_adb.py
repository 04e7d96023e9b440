"""The real adb client against the stand-in: commands, copies, and a whole measurement on a phone that behaves."""

import functools
import json
import os
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from phonefit.device_bench.adb_errors import AdbCommandError
from phonefit.device_bench.android import AndroidDevice, attached, runner_architecture
from phonefit.device_bench.bench import bench
from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.native_runner import STAMP, Built, inputs_digest, runner_for
from phonefit.device_bench.shell_device import FOLDER
from phonefit.pipeline.cli import app
from tests.device.adb_device_stand_in import WORK, AdbDeviceStandIn
from tests.device.adb_fixtures import attached_stand_in
from tests.device.phone_case import become_phone, runner_folder, small_job, transcript

pytest_plugins = ["tests.device.adb_fixtures"]


def test_arguments_arrive_as_they_are(stand_in_adb):
    awkward = ["a b", "$HOME", "it's", '"', "*", ";", "", "é", "`id`"]
    result = stand_in_adb.shell(["printf", "<%s>", *awkward])
    assert result.stdout == "".join(f"<{word}>" for word in awkward)


def test_exit_status_output_and_errors_are_told_apart(stand_in_adb):
    result = stand_in_adb.shell(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    with pytest.raises(AdbCommandError, match="exit status 3: err"):
        stand_in_adb.shell(["sh", "-c", "echo err >&2; exit 3"], check=True)


def test_a_long_output_arrives_whole(stand_in_adb):
    assert stand_in_adb.shell(["seq", "200000"]).stdout.split() == [str(number) for number in range(1, 200001)]


def test_a_file_is_copied_once(stand_in_adb, stand_in, tmp_path):
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(700_000))
    target = f"{WORK}/model.bin"
    assert stand_in_adb.push(source, target) is True
    assert stand_in.local(target).read_bytes() == source.read_bytes()
    assert stand_in_adb.push(source, target) is False
    source.write_bytes(b"another model")
    assert stand_in_adb.push(source, target) is True
    assert stand_in.pushes == [target, target]


def test_a_device_without_any_digest_program_is_asked_for_the_file_back(stand_in_adb, stand_in, tmp_path):
    for tool in ("sha256sum", "toybox", "md5sum"):
        stand_in.replies[tool] = lambda arguments: (127, f"sh: {arguments[0]}: not found\n")
    source = tmp_path / "f"
    source.write_bytes(b"content")
    stand_in_adb.push(source, f"{WORK}/g")
    stand_in_adb.pull(f"{WORK}/g", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


def test_md5_serves_where_sha256_is_missing(stand_in_adb, stand_in, tmp_path):
    for tool in ("sha256sum", "toybox"):
        stand_in.replies[tool] = lambda arguments: (127, f"sh: {arguments[0]}: not found\n")
    source = tmp_path / "f"
    source.write_bytes(b"content")
    assert stand_in_adb.push(source, f"{WORK}/f") and not stand_in_adb.push(source, f"{WORK}/f")


def test_a_missing_file_cannot_be_pulled_and_leaves_nothing(stand_in_adb, tmp_path):
    with pytest.raises(AdbCommandError, match=r"adb -s .* pull .*does not exist; see whether it was removed"):
        stand_in_adb.pull(f"{WORK}/nothing", tmp_path / "here")
    assert list(tmp_path.glob("*here*")) == []


def test_the_only_device_needs_no_name_and_one_of_two_does(private_adb, stand_in, tmp_path):
    assert private_adb.choose(None) == stand_in.serial
    with attached_stand_in(private_adb, tmp_path / "second") as second:
        with pytest.raises(DeviceError, match="several devices") as caught:
            private_adb.choose(None)
        assert stand_in.serial in str(caught.value) and second.serial in str(caught.value)
        assert private_adb.choose(second.serial) == second.serial


def test_a_wrong_serial_names_those_that_are_there(private_adb, stand_in):
    with pytest.raises(DeviceError, match=rf"no device with serial R5CT; attached: {stand_in.serial} \(device\)"):
        private_adb.choose("R5CT")


@pytest.fixture
def device(private_adb, stand_in, tmp_path):
    become_phone(stand_in)
    program = runner_folder(tmp_path / "native")
    opened = AndroidDevice(
        stand_in.serial, server=private_adb, state=tmp_path / "state", find_runner=lambda runtime, architecture: program
    )
    yield opened
    opened.cleanup()


def test_a_measurement_by_the_native_runner(device, stand_in, tmp_path):
    device.prepare()
    run = device.run(small_job(tmp_path))
    assert len(run.warmup_nanoseconds) == 2 and len(run.sample_nanoseconds) == 12
    assert (run.load_nanoseconds, run.baseline_bytes, run.peak_bytes) == (5000, 1000, 3000)
    assert run.conditions_before.keys() == run.conditions_after.keys()
    assert run.conditions_before["battery_celsius"] == 27.4 and run.conditions_before["thermal_status"] == 0
    assert run.conditions_before["fixed_performance"] is True


def test_runner_and_model_are_copied_once_for_many_runs(device, stand_in, tmp_path):
    device.prepare()
    job = small_job(tmp_path)
    for _ in range(3):
        device.run(job)
    assert len(stand_in.pushes) == 3 == len(set(stand_in.pushes))


def test_a_report_of_a_phone(device, stand_in, tmp_path):
    job = small_job(tmp_path)
    job.model.write_bytes(_onnx_bytes())
    device.prepare()
    report = bench(job.model, device=device, warmups=2, repeats=12)
    device.cleanup()
    assert report.device.name == "Google Pixel 8 (Google Tensor G3)"
    assert report.device.operating_system == "Android 15" and report.device.cores == 9
    assert report.median_milliseconds() == pytest.approx(0.0100045, rel=0.01)
    assert stand_in.files() == []


def _onnx_bytes() -> bytes:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    graph.output[0].name = "y"
    return helper.make_model(graph).SerializeToString()


def test_a_persons_input_goes_there_and_the_outputs_come_back(device, tmp_path):
    values = np.array([[1.5, -2, 0, 4]], np.float32)
    np.save(tmp_path / "x.npy", values)
    device.prepare()
    device.run(small_job(tmp_path, input_file=tmp_path / "x.npy", output_file=tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as outputs:
        np.testing.assert_array_equal(outputs["output_0"], values[0])
        assert outputs["output_1"].tobytes() == values.tobytes()


def test_cleaning_up_leaves_what_others_put_there_and_restores_the_settings(device, stand_in, tmp_path):
    stand_in.settings["stay_on_while_plugged_in"] = "3"
    stand_in.local(f"{WORK}/photo.jpg").write_bytes(b"a person's own")
    device.prepare()
    stand_in.local(f"{FOLDER}/note.txt").write_bytes(b"put there meanwhile")
    assert stand_in.settings["stay_on_while_plugged_in"] == "7"
    device.run(small_job(tmp_path))
    device.cleanup()
    device.cleanup()
    assert stand_in.files() == ["phonefit", "phonefit/note.txt", "photo.jpg"]
    assert stand_in.settings["stay_on_while_plugged_in"] == "3"
    assert stand_in.commands.count("cmd power set-fixed-performance-mode-enabled false") == 1


def test_a_setting_that_was_never_made_is_deleted_again(device, stand_in):
    device.prepare()
    device.cleanup()
    assert stand_in.settings == {}


def test_before_android_11_there_is_no_fixed_performance(device, stand_in):
    become_phone(stand_in, version=9)
    device.prepare()
    assert not [line for line in stand_in.commands if line.startswith("cmd power")]


def test_the_cpu_mask_reaches_taskset(device, stand_in, tmp_path):
    device.prepare()
    device.run(small_job(tmp_path, cpu_mask=0b1))
    assert any(line.startswith(f"taskset 1 {FOLDER}") for line in stand_in.commands)
    with pytest.raises(DeviceError, match="CPU mask 0x200 names cores"):
        device.run(small_job(tmp_path, cpu_mask=1 << 9))


def test_what_the_phone_cannot_do_is_refused(device, tmp_path):
    device.prepare()
    with pytest.raises(DeviceError, match="cannot enforce a memory limit"):
        device.run(small_job(tmp_path, memory_limit_bytes=10**6))
    with pytest.raises(DeviceError, match=r"10 threads asked, but .* has 9 cores"):
        device.run(small_job(tmp_path, threads=10))


def test_a_phone_without_a_native_runner_needs_the_app(private_adb, stand_in, tmp_path):
    become_phone(stand_in)
    device = AndroidDevice(stand_in.serial, server=private_adb, state=tmp_path / "state", find_runner=lambda *_: None)
    try:
        device.prepare()
        with pytest.raises(DeviceError, match=r"no native onnx runner for Google Pixel 8 .*app of android_demo/"):
            device.run(small_job(tmp_path))
    finally:
        device.cleanup()


def warm(stand_in, waits):
    """Hot and throttling at first; cool after the third look."""

    def battery(_):
        celsius = 44.0 if len(waits) < 3 else 36.5
        return 0, transcript("battery_9").replace("temperature: 274", f"temperature: {celsius * 10:.0f}")

    stand_in.replies["dumpsys battery"] = battery
    stand_in.replies["dumpsys thermalservice"] = lambda _: (
        0,
        transcript("thermal_13" if len(waits) < 3 else "thermal_15"),
    )


def test_a_warm_phone_is_waited_for(private_adb, stand_in, tmp_path):
    become_phone(stand_in)
    waits: list[float] = []
    warm(stand_in, waits)
    device = AndroidDevice(stand_in.serial, server=private_adb, state=tmp_path / "state", wait=waits.append)
    device.prepare()
    device.cleanup()
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("command", "reply", "reason"),
    [
        ("dumpsys battery", transcript("battery_9").replace("274", "440"), "the battery has 44 °C.*let it cool down"),
        ("dumpsys battery", transcript("battery_9").replace("level: 85", "level: 9"), "battery is at 9 %.*charge it"),
        ("dumpsys thermalservice", transcript("thermal_13"), "throttling .moderate, status 2.*let it cool down"),
        ("settings get global low_power", "1\n", "power saving is on.*switch power saving off"),
    ],
)
def test_a_phone_that_is_not_fit_is_refused_and_left_as_it_was(private_adb, stand_in, tmp_path, command, reply, reason):
    become_phone(stand_in)
    stand_in.replies[command] = reply
    device = AndroidDevice(
        stand_in.serial, server=private_adb, state=tmp_path / "state", cool_down_seconds=10, wait=lambda seconds: None
    )
    try:
        with pytest.raises(DeviceError, match=reason):
            device.prepare()
    finally:
        device.cleanup()
    assert stand_in.files() == [] and stand_in.settings == {}


def test_the_list_of_devices_says_which_can_be_trusted_and_why_not(private_adb, stand_in, tmp_path):
    become_phone(stand_in)
    with attached_stand_in(private_adb, tmp_path / "hot") as hot, AdbDeviceStandIn(tmp_path / "shy") as shy:
        become_phone(hot, version=11)
        hot.replies["dumpsys thermalservice"] = transcript("thermal_13")
        shy.authorised = False
        with pytest.raises(DeviceError, match="Allow USB debugging"):
            private_adb.connect(shy.serial)
        found = {item.serial: item for item in attached(private_adb)}
        private_adb.disconnect(shy.serial)
    good = found[stand_in.serial]
    assert good.trusted and good.remarks == "" and good.name == f"adb:{stand_in.serial}"
    assert (good.info.name, good.info.operating_system) == ("Google Pixel 8 (Google Tensor G3)", "Android 15")
    assert good.info.ram_bytes == 7682364 * 1024
    assert not found[hot.serial].trusted and "throttling" in found[hot.serial].remarks
    assert found[hot.serial].info.name == "samsung SM-A515F (exynos9611)"
    unauthorised = found[shy.serial]
    assert (unauthorised.state, unauthorised.info, unauthorised.trusted) == ("unauthorized", None, False)
    assert "Allow USB debugging" in unauthorised.remarks


def listed(private_adb, monkeypatch, *options):
    """What `phonefit devices` prints."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(private_adb.port))
    monkeypatch.setenv("COLUMNS", "160")
    result = CliRunner().invoke(app, ["devices", *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_devices_command_shows_what_a_phone_is_and_whether_it_can_be_trusted(
    private_adb, stand_in, tmp_path, monkeypatch
):
    become_phone(stand_in)
    with attached_stand_in(private_adb, tmp_path / "hot") as hot:
        become_phone(hot, version=11)
        hot.replies["dumpsys thermalservice"] = transcript("thermal_13")
        text = listed(private_adb, monkeypatch)
        lines = {line["name"]: line for line in json.loads(listed(private_adb, monkeypatch, "--json"))}
    pixel, warm = (next(line for line in text.splitlines() if f"adb:{one.serial} " in line) for one in (stand_in, hot))
    cells = ("device", "yes", "Google Pixel 8 (Google Tensor G3)", "9", "7.3 GiB", "Android 15")
    assert [cell.strip() for cell in re.split(r"\s{2,}", pixel.strip())] == [f"adb:{stand_in.serial}", *cells]
    assert "  no " in warm and "samsung SM-A515F (exynos9611)" in warm and "Android 11" in warm
    assert f"adb:{hot.serial}: " in text and "throttling" in text
    found = lines[f"adb:{stand_in.serial}"]
    assert (found["state"], found["trusted"], found["remarks"]) == ("device", True, "")
    assert found["info"]["details"]["soc"] == "Google Tensor G3" and found["info"]["ram_bytes"] == 7682364 * 1024
    assert not lines[f"adb:{hot.serial}"]["trusted"]


def test_a_runner_that_was_built_for_android_is_used_and_no_other(private_adb, stand_in, tmp_path):
    become_phone(stand_in)
    program = runner_folder(tmp_path / "native")
    folder = program.parents[1]
    other = tmp_path / "native" / "arm64-v8a"
    shutil.copytree(folder, other)
    find = functools.partial(runner_for, root=tmp_path / "native")
    device = AndroidDevice(stand_in.serial, server=private_adb, state=tmp_path / "state", find_runner=find)
    try:
        device.prepare()
        assert runner_architecture(device.info()) == "android-arm64-v8a"
        Built(inputs=inputs_digest(), files={}).save(other / STAMP)  # that of a plain Linux
        with pytest.raises(DeviceError, match=r"no native onnx runner for Google Pixel 8 .*arm64-v8a, Android 15"):
            device.run(small_job(tmp_path))
        Built(inputs="of an earlier version", files={}).save(folder / STAMP)
        with pytest.raises(DeviceError, match="no native onnx runner"):
            device.run(small_job(tmp_path))
        assert stand_in.pushes == []
        Built(inputs=inputs_digest(), files={}).save(folder / STAMP)
        assert len(device.run(small_job(tmp_path)).sample_nanoseconds) == 12
    finally:
        device.cleanup()
    programs = [path for path in stand_in.pushes if path.startswith(f"{FOLDER}/")]
    assert f"{FOLDER}/android-arm64-v8a/bin/phonefit_onnx" in programs
    assert stand_in.files() == []


def test_a_plain_linux_behind_adb_needs_no_android(private_adb, stand_in, tmp_path):
    program = runner_folder(tmp_path / "native")
    asked = []

    def find(runtime, architecture):
        asked.append(architecture)
        return program

    device = AndroidDevice(stand_in.serial, server=private_adb, state=tmp_path / "state", find_runner=find)
    try:
        device.prepare()
        assert device.info().operating_system == "Linux"
        run = device.run(small_job(tmp_path))
    finally:
        device.cleanup()
    assert asked == [os.uname().machine] == [runner_architecture(device.info())]
    assert run.conditions_before["battery_percent"] is None and run.conditions_before["available_bytes"] > 0
