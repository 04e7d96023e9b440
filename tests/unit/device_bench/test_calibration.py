"""Fitted cores from reports of a phone; the phone and the emulator are stand-ins, the files are real."""

import json
import statistics
from pathlib import Path

import pytest

from phonefit.device_bench.bench import bench
from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.devices import open_device
from phonefit.device_bench.emulator import calibration
from phonefit.device_bench.emulator.calibration import (
    FittedCore,
    calibrate,
    check_name,
    check_reports,
    cores_folder,
    find_models,
)
from phonefit.device_bench.emulator.latency_model import core_named
from phonefit.device_bench.report import Doubt
from phonefit.models.errors import FileFormatError, UnknownNameError
from tests.phone_times import PHONE, CountsStandIn, PhoneTimesStandIn, onnx_model

GOLDEN = Path(__file__).parents[2] / "golden" / "fitted_core_1.json"
CORE = core_named("cortex-a76")


def measured(folder, count, noise=0.02):
    """Report file -> (its report, the counted one) of as many models, the models beside them."""
    phone, found = PhoneTimesStandIn(CORE, noise), {}
    for number in range(count):
        model = onnx_model(folder, f"model{number}", channels=2 + number, size=4)
        counted = bench(model, device=CountsStandIn())
        found[folder / f"report{number}.json"] = phone.report(counted), counted
    return found


@pytest.fixture
def reports(tmp_path):
    return {path: report for path, (report, _) in measured(tmp_path, 6).items()}


@pytest.fixture
def cores(tmp_path, monkeypatch):
    monkeypatch.setenv("PHONEFIT_CORES", str(tmp_path / "cores"))
    (tmp_path / "cores").mkdir()
    return tmp_path / "cores"


def fitted(reports, name="my-phone"):
    return calibrate(name, reports, find_models(reports), device=CountsStandIn())


def test_a_fitted_core_keeps_what_it_was_made_from(reports, tmp_path):
    steps = []
    core = calibrate(
        "my-phone", reports, find_models(reports), device=CountsStandIn(), advance=lambda *step: steps.append(step)
    )
    assert [note for _, note in steps] == [f"model{number}.onnx" for number in range(6)]
    assert (core.prior, core.device, core.notes) == ("cortex-a76", PHONE, ())
    times = {report.model_sha256: statistics.median(report.figures["latency"].samples) for report in reports.values()}
    assert {model.sha256: model.measured_nanoseconds for model in core.calibration.models} == times
    core.save(tmp_path / "core.json")
    assert FittedCore.load(tmp_path / "core.json") == core


def test_estimates_for_unseen_models_are_closer_than_unfitted_ones(tmp_path):
    pairs = measured(tmp_path, 30)
    seen = dict(list(pairs.items())[:20])
    core = fitted({path: report for path, (report, _) in seen.items()})

    def error(model):
        phone = PhoneTimesStandIn(CORE, noise=0.0)
        counted = [each for path, (_, each) in pairs.items() if path not in seen]
        estimates = [
            model.nanoseconds({name: each.figures[name].samples[0] for name in CORE.cycles}) for each in counted
        ]
        return statistics.median(
            abs(estimate / phone.nanoseconds(each) - 1) for estimate, each in zip(estimates, counted, strict=True)
        )

    assert error(core.core()) < 0.05 < error(CORE) / 2
    assert core.calibration.error <= core.calibration.unseen_error < 0.1


def test_the_error_is_that_of_the_models_shown(reports):
    result = fitted(reports).calibration
    errors = [abs(model.error) for model in result.models]
    assert result.error == pytest.approx(statistics.median(errors))
    assert result.largest_error == pytest.approx(max(errors))
    assert result.unseen_error == pytest.approx(statistics.median(abs(model.unseen_error) for model in result.models))


def test_three_reports_are_enough_for_a_fit_but_not_for_the_error_of_an_unseen_model(reports):
    core = fitted(dict(list(reports.items())[:3]))
    assert core.calibration.unseen_error is None
    assert all(model.unseen_error is None for model in core.calibration.models)
    assert "for an unseen model unknown" in core.core().origin


def test_a_fitted_core_is_another_device_and_says_where_its_coefficients_come_from(reports):
    core = fitted(reports)
    info, unfitted = core.open().info(), open_device("emulator:counts").info()
    assert info.name.startswith("my-phone (fitted cortex-a76, ") and not info.like(unfitted)
    assert "fitted to 6 reports of Stand-in Phone: median error" in info.details["estimate"]
    assert "published for the Arm Cortex-A76, not fitted" in unfitted.details["estimate"]
    other = fitted(dict(list(reports.items())[:5])).open().info()
    assert other.name.startswith("my-phone") and not other.like(info)


def test_it_is_opened_by_its_name_or_its_file(reports, cores, tmp_path):
    core = fitted(reports)
    core.save(cores / "my-phone.json")
    core.save(tmp_path / "elsewhere.json")
    by_name = open_device("emulator:counts:core=my-phone").info()
    assert by_name == open_device(f"emulator:counts:core={tmp_path / 'elsewhere.json'}").info() == core.open().info()


def test_an_unknown_core_lists_the_fitted_ones(reports, cores):
    fitted(reports).save(cores / "my-phone.json")
    with pytest.raises(UnknownNameError, match=r"did you mean 'my-phone'.*cortex-a55, cortex-a76, my-phone"):
        open_device("emulator:counts:core=my-fone")
    with pytest.raises(FileFormatError, match="no such file"):
        open_device("emulator:counts:core=nowhere.json")


def test_a_core_that_changed_since_the_fit_is_refused(reports, tmp_path):
    core = fitted(reports).model_copy(update={"prior_digest": "0" * 64})
    with pytest.raises(DeviceError, match="fit it anew: phonefit calibrate --name my-phone --core cortex-a76"):
        core.open()


def test_where_fitted_cores_lie(monkeypatch, tmp_path):
    monkeypatch.delenv("PHONEFIT_CORES", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cores_folder() == tmp_path / ".config/phonefit/cores"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    assert cores_folder() == tmp_path / "settings/phonefit/cores"
    monkeypatch.setenv("PHONEFIT_CORES", str(tmp_path / "mine"))
    assert cores_folder() == tmp_path / "mine"
    assert calibration.fitted_cores() == {}


@pytest.mark.parametrize("name", ["cortex-a76", "", "a b", "../x", ".hidden", "x.json"])
def test_names_that_no_core_can_have(name):
    with pytest.raises(DeviceError, match=r"no name of a core|unfitted core"):
        check_name(name)


def first(reports, **changes):
    path, report = next(iter(reports.items()))
    return {**reports, path: report.model_copy(update=changes)}


DOUBT = Doubt(reason="other work kept 2.0 of 2 cores busy", remedy="stop it")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": PHONE.model_copy(update={"name": "Other Phone"})}, r"2 devices: Other Phone .*Stand-in Phone"),
        ({"device": PHONE.model_copy(update={"architecture": "x86_64"})}, "is x86_64; the counts are of a 64-bit Arm"),
        ({"settings": {"threads": 4}}, "measured with 4 threads"),
        ({"untrusted": (DOUBT,)}, r"kept 2.0 of 2 cores busy.*--allow-untrusted"),
        ({"out_of_memory": True}, "the memory limit ended the process"),
    ],
)
def test_reports_that_do_not_do(reports, changes, said):
    with pytest.raises(DeviceError, match=said) as caught:
        check_reports(first(reports, **changes))
    assert "report0.json" in str(caught.value)


def test_modelled_and_double_and_too_few_reports_are_named_together(tmp_path):
    pairs = measured(tmp_path, 2)
    (one, other) = pairs
    reports = {one: pairs[one][0], other: pairs[other][1], tmp_path / "again.json": pairs[one][0]}
    with pytest.raises(DeviceError) as caught:
        check_reports(reports)
    said = str(caught.value)
    assert "report1.json: its latency is modelled on cortex-a76, counted" in said
    assert f"again.json: of the same file as {one}" in said
    assert "2 file(s) measured, a fit needs at least 3" in said


def test_untrusted_reports_can_be_taken_and_are_noted(reports):
    doubtful = first(reports, untrusted=(DOUBT,), versions={"onnxruntime": "0.9"})
    check_reports(doubtful, allow_untrusted=True)
    assert fitted(doubtful).notes == (
        "model0.onnx: measured with onnxruntime 0.9, counted with 1.0",
        "model0.onnx: its measurement is not to be trusted",
    )


def test_models_are_found_by_their_content_beside_the_reports_or_below_a_folder(reports, tmp_path):
    place = tmp_path / "deep" / "down"
    place.mkdir(parents=True)
    (tmp_path / "model0.onnx").rename(place / "renamed.onnx")
    with pytest.raises(DeviceError, match=r"report0.json: model0.onnx, sha256 [\s\S]*--models FOLDER") as caught:
        find_models(reports)
    assert "report1" not in str(caught.value)
    found = find_models(reports, [tmp_path / "deep"])
    assert found[tmp_path / "report0.json"] == place / "renamed.onnx"
    assert found[tmp_path / "report1.json"] == tmp_path / "model1.onnx"
    with pytest.raises(DeviceError, match="nowhere is no folder"):
        find_models(reports, [tmp_path / "nowhere"])


def test_a_stored_fitted_core_loads_and_keeps_its_content(tmp_path):
    core = FittedCore.load(GOLDEN)
    core.save(tmp_path / "again.json")
    stored, kept = json.loads(GOLDEN.read_text()), json.loads((tmp_path / "again.json").read_text())
    assert {name: kept[name] for name in stored} == stored
    assert core.calibration.error <= core.calibration.largest_error
