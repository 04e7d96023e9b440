"""Reading a search: `phonefit search --show`, its page, and the dashboard on the same study."""

import io
import json
import re
import subprocess
import sys
import urllib.request

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from phonefit.pipeline.cli import app
from phonefit.pipeline.errors import ParityError, RecipeError
from phonefit.pipeline.recipe_file import apply_overrides
from phonefit.pipeline.search.result import SearchResult, SearchTrial
from phonefit.pipeline.search.study import search
from phonefit.pipeline.search.summary import convergence_of, summarise_study
from phonefit.pipeline.search.summary_page import summary_page
from phonefit.pipeline.search.summary_table import summary_table
from tests.integration.test_search_study import ROOT, SPACE, make_recipe, objective


def fails_on_tflite(recipe):
    """Fast enough up to 6 epochs on executorch only; tflite fails, and is not to be trusted on onnx with 8 epochs."""
    if recipe.convert.runtimes == ("tflite",):
        raise ParityError(f"tflite: cosine {recipe.finetune.learning_rate:.6f}, limit 0.98")
    return objective(recipe, trusted=recipe.convert.runtimes != ("onnx",))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search with complete, failed, untrusted trials, and some over the budget; and its recipe as a file."""
    runs = tmp_path_factory.mktemp("summary")
    space = {**SPACE, "bench.threads": [1, 2]}
    recipe = make_recipe(space=space, budget={"latency_p90_ms": 16})
    recipe = apply_overrides(recipe, {"search.sampler": "random"})
    result = search(recipe, trials=40, runs=runs, evaluate=fails_on_tflite)
    path = runs / "study.yaml"
    path.write_text(yaml.safe_dump(recipe.as_json()))
    return runs, recipe, result, path


def text_of(renderable, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_the_summary_says_what_was_found_reused_and_lost(finished):
    runs, recipe, result, _ = finished
    summary = summarise_study(recipe, runs)
    assert summary.result.trials == result.trials
    assert summary.result.pareto == result.pareto
    stages = {stage.stage: stage for stage in summary.stages}
    complete = sum(trial.state == "complete" for trial in result.trials)
    assert (stages["finetune"].reused, stages["finetune"].seconds_saved) == (complete, 30.0 * complete)
    assert (stages["convert"].computed, stages["convert"].seconds_spent) == (complete, 2.0 * complete)
    reasons = {reason.kind: reason for reason in summary.reasons}
    assert len([reason for reason in summary.reasons if reason.kind == "failed"]) == 1  # they differ in numbers only
    assert reasons["failed"].trials == tuple(trial.number for trial in result.trials if trial.state == "failed")
    assert reasons["failed"].text == result.trials[reasons["failed"].trials[0]].reason
    over = [trial for trial in result.trials if trial.values and trial.values["latency_p90_ms"] > 16]
    assert reasons["over budget"].trials == tuple(trial.number for trial in over)
    assert "latency_p90_ms is missed by" in reasons["over budget"].text
    assert reasons["untrusted"].text == "the machine was busy"
    assert reasons["untrusted"].trials == tuple(trial.number for trial in result.trials if not trial.trusted)


def test_importances_name_the_parameters_that_matter(finished):
    runs, recipe, _, _ = finished
    summary = summarise_study(recipe, runs)
    assert set(summary.importances) == {"quality", "latency_p90_ms", "front"}
    for shares in summary.importances.values():
        assert sum(shares.values()) == pytest.approx(1)
        assert set(shares) == {*SPACE, "bench.threads"}
    # by the formula latency knows epochs only, of the trials that are learned from: executorch's
    latency = summary.importances["latency_p90_ms"]
    assert max(latency, key=latency.get) == "finetune.epochs"
    assert "PED-ANOVA" in summary.importances_note


def test_few_trials_have_no_importances_and_say_why(tmp_path):
    search(make_recipe(), trials=4, runs=tmp_path, evaluate=objective)
    summary = summarise_study(make_recipe(), tmp_path)
    assert summary.importances == {}
    assert (
        "importances of parameters need 10 trials with figures to learn from; there are 4" in summary.importances_note
    )
    assert summary.importances_note in " ".join(text_of(summary_table(summary)).split())


def result_of(*values, objectives=("quality",), limits=None):
    trials = [
        SearchTrial(
            number=number,
            state="complete",
            parameters={},
            values=dict(zip(objectives, value, strict=True)),
            constraints={"file_size": (limits or {}).get(number, 0.0)},
        )
        for number, value in enumerate(values)
    ]
    return SearchResult(name="r", sampler="tpe", objectives=objectives, trials=tuple(trials), pareto=())


def test_convergence_of_one_objective_is_the_best_value_that_fits():
    result = result_of((0.9,), (0.5,), (0.7,), (0.6,), limits={0: 1.0})
    assert [(step.trial, step.value) for step in convergence_of(result)] == [(1, 0.5), (2, 0.7), (3, 0.7)]


def test_convergence_of_two_objectives_is_the_hypervolume():
    # Scaled to 0..1 by hand: 50 %, 10 ms -> (1, 0); 100 %, 20 ms -> (0, 1); 75 %, 15 ms -> (0.5, 0.5); reference 1.1
    result = result_of((0.5, 10.0), (1.0, 20.0), (0.75, 15.0), objectives=("quality", "latency_p90_ms"))
    volumes = [0.1 * 1.1, 2 * 0.1 * 1.1 - 0.1 * 0.1]
    volumes.append(volumes[1] + (0.5 * 0.5))
    found = [step.value for step in convergence_of(result)]
    assert found == pytest.approx([volume / volumes[-1] for volume in volumes])


def test_the_tables_fit_80_columns_and_cut_nothing_off(finished):
    runs, recipe, result, _ = finished
    text = text_of(summary_table(summarise_study(recipe, runs)))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert all(path in text for path in SPACE)
    assert "█" in text
    assert "not spent again" in text
    assert re.search(r"over budget +\d+ +latency_p90_ms is missed by \d+% to \d+%", text)
    assert all(re.search(rf"^ +{number} +original", text, flags=re.MULTILINE) for number in result.pareto)


def test_the_page_opens_without_a_network_and_escapes_what_it_shows(finished):
    runs, recipe, _, _ = finished
    summary = summarise_study(recipe, runs)
    odd = summary.reasons[0].model_copy(update={"text": "<script>alert(1)</script>"})
    page = summary_page(summary.model_copy(update={"reasons": (odd,)}))
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert not re.search(r'<(?:script|link)[^>]+(?:src|href)="http', page)
    assert page.count('class="plotly-graph-div"') == 3
    assert "Plotly.newPlot" in page


def test_the_command_shows_and_writes(finished, tmp_path):
    runs, _, result, path = finished
    call = ["search", str(path), "--show", "--runs", str(runs)]
    done = CliRunner().invoke(app, [*call, "--html", str(tmp_path / "pages" / "study.html")])
    assert done.exit_code == 0, done.output
    assert "Importance of each parameter" in done.output
    assert (tmp_path / "pages" / "study.html").stat().st_size > 1e6  # with the plotting library inside
    content = json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)
    assert content["result"]["pareto"] == list(result.pareto)
    assert set(content["importances"]) == {"quality", "latency_p90_ms", "front"}
    assert len(SearchResult.load(runs / "study" / "search.json").trials) == len(result.trials)  # nothing was run


def test_what_is_not_there_yet_is_said(tmp_path):
    with pytest.raises(RecipeError, match=r"no search of the name 'study'.*study\.db does not exist; begin one with"):
        summarise_study(make_recipe(), tmp_path)

    def interrupted(recipe):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(make_recipe(), runs=tmp_path, evaluate=interrupted)
    with pytest.raises(RecipeError, match=r"no finished trial yet \(1 interrupted\)"):
        summarise_study(make_recipe(), tmp_path)
    search(make_recipe(), trials=1, runs=tmp_path, evaluate=objective)
    other = apply_overrides(make_recipe(), {"search.objectives": ["quality", "bytes"]})
    with pytest.raises(RecipeError, match=r"study of something else: it differs from the recipe in search\.objectives"):
        summarise_study(other, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--html", "x.html"], "--html goes with --show"),
        (["--show", "--trials", "3"], "run no trials"),
        (["--show", "--dashboard"], "either"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    done = CliRunner().invoke(app, ["search", "demo", *options])
    assert done.exit_code == 2
    assert message in done.output


def test_the_dashboard_serves_the_study(finished):
    pytest.importorskip("optuna_dashboard", reason="needs the extra phonefit[dashboard]")
    runs, _, result, path = finished
    command = [sys.executable, "-c", "from phonefit.pipeline.cli import main; main()", "search", str(path)]
    command += ["--dashboard", "--port", "0", "--runs", str(runs)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline()).group()
            studies = json.load(urllib.request.urlopen(f"{address}api/studies", timeout=60))
            (study,) = studies["study_summaries"] if "study_summaries" in studies else studies["studies"]
            detail = json.load(urllib.request.urlopen(f"{address}api/studies/{study['study_id']}", timeout=60))
            page = urllib.request.urlopen(f"{address}dashboard", timeout=60).read().decode()
        finally:
            process.terminate()
    assert study["study_name"] == "search"
    assert len(detail["trials"]) == len(result.trials)
    assert "<html" in page


def test_a_dashboard_that_is_not_installed_says_how_to_get_it(finished):
    runs, _, _, path = finished
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['optuna_dashboard'] = None; "
         "from phonefit.pipeline.cli import main; main()", "search", str(path), "--dashboard", "--runs", str(runs)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'phonefit[dashboard]'" in done.stderr
