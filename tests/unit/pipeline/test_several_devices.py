"""Several devices: the budget holds on each, objectives take the worst or a mean; one is as it always was."""

import io
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from phonefit.device_bench.device import DeviceInfo, MeasurementError
from phonefit.device_bench.report import Doubt, Figure, Report
from phonefit.models.artifact import Artifact
from phonefit.models.record import digest_of
from phonefit.pipeline.ask import AskSlowest
from phonefit.pipeline.budget import best_file, describe, figures_of, limits_of, missed_on
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.measure import identity
from phonefit.pipeline.planner_candidates import costs_of
from phonefit.pipeline.preflight import preflight
from phonefit.pipeline.recipe import BenchConfig, Recipe
from phonefit.pipeline.recipe_auto import BudgetConfig
from phonefit.pipeline.recipe_check import check_recipe
from phonefit.pipeline.recipe_file import load_recipe
from phonefit.pipeline.result import FileResult, Parity, TrialResult
from phonefit.pipeline.search.definition import definition_of
from phonefit.pipeline.search.outcome import devices_in_words, outcome_of
from phonefit.pipeline.tables import trial_table
from tests.tiny import LABELS, PREPROCESS

FAST, SLOW = "emulator:counts:core=cortex-a76", "emulator:counts:core=cortex-a55"
BUSY = Doubt(reason="the machine was busy", remedy="measure again")


def report(name="fast", milliseconds=5.0, memory=3e6, energy=None, instructions=None, trusted=True, ended=False):
    counted = {} if instructions is None else {"instructions": figure("instructions", "counted", instructions)}
    powered = {} if energy is None else {"energy": figure("uJ", "modelled", energy)}
    return Report(
        model_sha256="0" * 64,
        model_bytes=1_000_000,
        model_name="model",
        runtime="onnx",
        device=DeviceInfo(kind="host", name=name, architecture="arm64", cores=2, ram_bytes=1, operating_system="os"),
        settings={},
        figures={
            "latency": figure("ns", "modelled", milliseconds * 1e6),
            "peak_memory": figure("bytes", "counted", memory),
            **powered,
            **counted,
        },
        untrusted=() if trusted else (BUSY,),
        out_of_memory=ended,
    )


def figure(unit, source, value):
    return Figure(unit=unit, source=source, samples=(value,))


def file_on(*reports, quality=0.9):
    artifact = Artifact(
        file="model.onnx", runtime="onnx", backend="cpu", precision="fp32", sha256="0" * 64, bytes=1_000_000,
        inputs=(), outputs=(), task="classification", labels=LABELS, preprocess=PREPROCESS,
    )  # fmt: skip
    return FileResult(
        variant="compressed", artifact=artifact, path="x", checkpoint="c", quality={"accuracy": quality},
        quality_drop=0.0, parity=Parity(samples=1, cosine=1, snr_db=None, agreement=1), report=reports[0],
        further_reports=reports[1:],
    )  # fmt: skip


def trial_of(*files, best=0):
    recipe = make_recipe()
    return TrialResult(
        recipe=recipe.as_json(), recipe_digest=digest_of(recipe.as_json()), quality_name="accuracy",
        checkpoint_metrics={}, files=files, best=best, stages=(),
    )  # fmt: skip


def make_recipe(device=(FAST, SLOW), **sections):
    return Recipe(
        name="several",
        model={"family": "resnet18"},
        data={"source": "demo"},
        bench={"device": device, **sections.pop("bench", {})},
        **sections,
    )


def problems_of(**sections):
    with pytest.raises(RecipeError) as caught:
        check_recipe(make_recipe(**sections))
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_the_name_of_one_device_stays_what_it_was():
    alone = BenchConfig(device="host")
    assert BenchConfig(device=["host"]) == alone
    assert (alone.device, alone.devices) == ("host", ("host",))
    assert "search.devices" not in definition_of(make_recipe(device="host"))
    assert {"device", "further_reports"}.isdisjoint(file_on(report()).as_json())


def test_a_device_is_the_same_measurement_alone_and_among_others():
    both, info = BenchConfig(device=[FAST, SLOW]), report().device
    assert identity(info, both.on(SLOW)) == identity(info, BenchConfig(device=SLOW))


def test_devices_are_given_on_the_command_line():
    recipe = load_recipe("demo", [f"bench.device=[{FAST}, {SLOW}]", f"search.devices={{{SLOW}: 2}}"])
    assert recipe.bench.devices == (FAST, SLOW)
    assert recipe.device_weights == (0.0, 2.0)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"device": [FAST, "hots"]}, "bench.device: unknown device 'hots'; did you mean 'host'?"),
        ({"search": {"devices": {"emulator:counts:core=cortex-a57": 1}}}, "search.devices: 'emulator:counts:core=cor"),
        (
            {"device": ["host", FAST]},  # the usual objectives have latency
            f"search.objectives: latency_p90_ms of unlike devices does not compare: host (measured), {FAST} (modelled)",
        ),
        (
            {"device": ["host", "adb:1"], "search": {"objectives": ["quality", "instructions"]}},
            "search.objectives: bench.device host, adb:1 do not count instructions; devices that do: emulator:counts",
        ),
        (
            {
                "device": ["host", FAST],
                "search": {"objectives": ["quality"]},
                "compress": [{"technique": "prune", "instructions": 9}],
            },
            "compress.0.instructions: bench.device host does not count instructions",
        ),
    ],
)
def test_what_devices_cannot_do_together_is_refused(sections, expected):
    (problem,) = problems_of(**sections)
    assert problem.startswith(expected)


def test_unlike_devices_go_together_where_one_kind_has_the_weight():
    objectives = ["quality", "latency_p90_ms", "instructions"]
    check_recipe(make_recipe(device=["host", FAST], search={"objectives": objectives, "devices": {FAST: 1}}))


@pytest.mark.parametrize("device", [[], ["host", "host"]])
def test_each_device_is_named_once(device):
    with pytest.raises(ValueError, match="each of several once"):
        BenchConfig(device=device)


def test_one_device_under_two_names_is_found_when_it_is_asked():
    class Phone:
        def __init__(self, name):
            self.name = name

        def info(self):
            return report(self.name).device

    preflight(make_recipe(), None, Phone("a"), Phone("b"))
    with pytest.raises(RecipeError, match=f"{FAST} and {SLOW} are one device; name it once"):
        preflight(make_recipe(), None, Phone("a"), Phone("a"))


def test_a_limit_holds_on_every_device_and_says_where_it_does_not():
    file = file_on(report(milliseconds=5), report(milliseconds=12, memory=1e6))
    budget = BudgetConfig(latency_p90_ms=10, peak_memory="2MB", file_size="0.5MB")
    missed = missed_on((FAST, SLOW), file, budget)
    assert {one.limit_name: one.device for one in missed} == {
        "latency_p90_ms": SLOW,
        "peak_memory": FAST,
        "file_size": "",
    }
    (latency,) = (describe(one) for one in missed if one.limit_name == "latency_p90_ms")
    assert latency == f"latency_p90_ms: 12 ms on {SLOW}, limit 10 ms, missed by 20 %"
    assert missed_on((FAST, SLOW), file, BudgetConfig(latency_p90_ms=12)) == ()


def test_what_one_device_does_not_tell():
    together = figures_of(file_on(report(energy=90.0, instructions=7e6), report(energy=40.0)))
    assert (together.energy, together.instructions) == (90.0, 7e6)
    unknown = figures_of(file_on(report(energy=90.0), report()))
    assert (unknown.energy, unknown.energy_source) == (None, "not measured")


def test_a_device_whose_memory_was_too_small_is_named():
    ended = report(memory=1e6, ended=True)
    (missed,) = missed_on((FAST, SLOW), file_on(report(), ended), BudgetConfig(peak_memory="64MB"))
    assert (missed.limit_name, missed.device, missed.excess) == ("peak_memory", SLOW, 1.0)


def test_the_best_file_is_the_one_that_is_fast_on_the_slowest_device():
    even = file_on(report(milliseconds=8), report(milliseconds=9))
    lopsided = file_on(report(milliseconds=1), report(milliseconds=20))
    assert best_file([lopsided, even], "accuracy", samples=100) == 1


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, (0.9, 12.0, 3e6, 7e6, 1e6)),
        ((3.0, 1.0), (0.9, 6.75, 2.5e6, 7e6, 1e6)),
        ((0.0, 2.0), (0.9, 12.0, 1e6, math.nan, 1e6)),
    ],
)
def test_an_objective_is_the_worst_or_the_mean_of_its_devices(weights, expected):
    file = file_on(report(instructions=7e6), report(milliseconds=12, memory=1e6))
    objectives = ("quality", "latency_p90_ms", "peak_memory", "instructions", "bytes")
    for name, value in zip(objectives, expected, strict=True):
        if math.isnan(value):
            with pytest.raises(MeasurementError, match=f"no figure for the objective {name}"):
                outcome_of(trial_of(file), [name], BudgetConfig(), weights)
        else:
            assert outcome_of(trial_of(file), [name], BudgetConfig(), weights).values == (pytest.approx(value),)


def test_a_figure_that_a_device_lacks_fails_the_trial():
    with pytest.raises(MeasurementError, match="no figure for the objective energy_uj"):
        outcome_of(trial_of(file_on(report(energy=9.0), report())), ["energy_uj"], BudgetConfig())


def test_a_doubt_on_any_device_marks_the_trial():
    file = file_on(report(), report("slow", trusted=False))
    outcome = outcome_of(trial_of(file), ["quality", "latency_p90_ms"], BudgetConfig())
    assert (outcome.reliable, outcome.notes["trusted"]) == (False, False)
    assert outcome_of(trial_of(file), ["quality", "bytes"], BudgetConfig()).reliable


def test_constraints_are_those_of_the_worst_device():
    file = file_on(report(milliseconds=5), report(milliseconds=12))
    outcome = outcome_of(trial_of(file), ["quality"], BudgetConfig(latency_p90_ms=10), (1.0, 0.0))
    assert outcome.constraints == {"latency_p90_ms": pytest.approx(0.2)}


def test_how_devices_count_is_part_of_the_study_and_said_in_words():
    worst = make_recipe()
    mean = make_recipe(search={"devices": {FAST: 0.7, SLOW: 0.3}})
    assert devices_in_words(worst) == f"worst of {FAST}, {SLOW}"
    assert devices_in_words(mean) == f"mean of 0.7 x {FAST}, 0.3 x {SLOW}"
    assert devices_in_words(make_recipe(device="host")) == ""
    assert definition_of(worst) != definition_of(mean)


def test_a_plan_looks_at_the_worst_of_each_figure():
    recipe = make_recipe(budget={"latency_p90_ms": 9, "peak_memory": "2MB"})
    setting = SimpleNamespace(recipe=recipe, limits=limits_of(recipe.limits))
    costs = costs_of([report(milliseconds=5, memory=3e6), report(milliseconds=12, memory=1e6)], setting)
    assert costs == {"latency_p90_ms": 12.0, "peak_memory": 3e6}


def test_a_step_hears_the_slowest_device():
    class Answer(SimpleNamespace):
        def __call__(self, candidate):
            return self.report

    fast = Answer(identity={"device": FAST}, report=report(milliseconds=5))
    slow = Answer(identity={"device": SLOW}, report=report("slow", milliseconds=12))
    both = AskSlowest([fast, slow])
    assert both("candidate").device.name == "slow"
    assert both.identity == {"devices": [{"device": FAST}, {"device": SLOW}]}
    assert AskSlowest([fast]).identity == fast.identity


def test_the_table_has_a_line_for_each_device():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(trial_table(trial_of(file_on(report(milliseconds=5), report("slow", milliseconds=12)))))
    text = console.export_text()
    assert "on slow" in text and "12.00" in text and "5.00" in text
    assert "it must fit on every device" in text
