"""A search result as tables for a terminal."""

from collections.abc import Sequence

from pydantic import JsonValue
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from phonefit.models.record import canonical_json
from phonefit.pipeline.recipe_search import Objective
from phonefit.pipeline.search.result import DIRECTIONS, SearchResult, SearchTrial

_ARROWS = {"maximize": "↑", "minimize": "↓"}


def search_table(result: SearchResult) -> RenderableType:
    """The Pareto front, then what else happened."""
    notes = [counts_note(result), _reuse(result), saving_note(result), result.note, *_failures(result.trials)]
    return Group(front_table(result), *(Text(note, "dim") for note in notes if note))


def front_table(result: SearchResult) -> RenderableType:
    """The Pareto front, best of the first objective first, its parameters below, and how far it can be trusted."""
    number = sum(trial.state not in ("duplicate", "refused") for trial in result.trials)
    title = f"Pareto front of {number} trials"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial", justify="right")
    table.add_column("file", overflow="fold")
    for name in result.objectives:
        table.add_column(f"{name.replace('_', ' ')} {_ARROWS[DIRECTIONS[name]]}", justify="right")
    table.add_column("quality, test", justify="right")
    first = result.objectives[0]
    by_number = {trial.number: trial for trial in result.trials}
    front = sorted((by_number[number] for number in result.pareto), key=lambda trial: cost(trial, first))
    for trial in front:
        assert trial.values is not None  # only complete trials are on the front
        figures = [figure_text(name, trial.values[name]) for name in result.objectives]
        tested = "" if trial.test_quality is None else figure_text("quality", trial.test_quality)
        file = (trial.file or "").removeprefix("compressed ")
        table.add_row(str(trial.number), f"{file}{'' if trial.trusted else ' ?'}", *figures, tested)
    notes = [f"trial {trial.number}: {parameters_text(trial)}" for trial in front]
    if not all(trial.trusted for trial in front):
        notes.append("? unstable measurement; see the reasons in trials/N.json, or measure again on an idle machine")
    notes += [devices_note(result), untrusted_note(result)]
    head = table if front else Text("no trial meets the whole budget" + _nearest(result.trials), "yellow")
    return Group(head, *(Text(note, "dim") for note in notes if note))


def devices_note(result: SearchResult) -> str:
    """What the figures are where there are several devices. Quality and bytes are the same on all."""
    of_devices = [name for name in result.objectives if name not in ("quality", "bytes")]
    return f"{', '.join(of_devices)}: {result.devices}" if result.devices and of_devices else ""


def untrusted_note(result: SearchResult) -> str:
    """How many trials the sampler did not learn from because their measurements stayed untrusted."""
    complete = [trial for trial in result.trials if trial.state == "complete"]
    ignored = sum(not trial.learned for trial in complete)
    if not ignored:
        return ""
    if ignored == len(complete):
        return (
            f"no measurement of the {ignored} trials could be trusted, so the sampler learned nothing and the front "
            "is a guess: measure on an idle machine or on emulator:counts, or learn from them all the same with "
            "search.untrusted=learn and another name"
        )
    return (
        f"{ignored} of {len(complete)} trials could not be trusted in a figure that is searched for: nothing was "
        "learned from them, and they take no other trial off the front"
    )


def parameters_text(trial: SearchTrial) -> str:
    """For example "bench.threads = 2, compress = prune(ratio=0.3) + quantise"."""
    return ", ".join(f"{path} = {_value_text(value)}" for path, value in trial.parameters.items())


def _value_text(value: JsonValue) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        options = ", ".join(f"{key}={_value_text(item)}" for key, item in value.items() if key != "technique")
        technique = str(value.get("technique", ""))
        return f"{technique}({options})" if options or not technique else technique
    if isinstance(value, list):
        return " + ".join(_value_text(item) for item in value) or "nothing"
    return value if isinstance(value, str) else canonical_json(value)


def cost(trial: SearchTrial, objective: Objective) -> float:
    """The objective of a complete trial, so that less is better."""
    value = trial.values[objective] if trial.values is not None else 0.0
    return -value if DIRECTIONS[objective] == "maximize" else value


def figure_text(objective: Objective, value: float) -> str:
    """A figure with its unit."""
    if objective == "quality":
        return f"{value:.2%}" if value >= 0 else f"error {-value:.4g}"
    if objective == "energy_uj":
        return f"{value:.0f} uJ"
    if objective == "instructions":
        return f"{value / 1e6:.2f} M"
    return f"{value:.2f} ms" if objective == "latency_p90_ms" else f"{value / 1e6:.2f} MB"


def counts_note(result: SearchResult) -> str:
    """How many trials ended how."""
    states = [trial.state for trial in result.trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    over = sum(trial.state == "complete" and not trial.feasible for trial in result.trials)
    return f"trials: {counted}" + (f"; {over} of the complete ones miss a limit of the budget" if over else "")


def _reuse(result: SearchResult) -> str:
    stages = result.stages_reused + result.stages_computed
    return f"{result.stages_reused} of {stages} stages were in the store ({result.seconds_saved:.0f} s not spent again)"


def saving_note(result: SearchResult) -> str:
    """What ending trials early has saved, and what it cost."""
    ended = sum(trial.state == "ended" for trial in result.trials)
    spent = f"the checks took {result.seconds_checking:.0f} s" if result.seconds_checking else ""
    if not ended:
        return spent
    avoided = (
        f"{ended} trials were ended early: about {result.seconds_avoided:.0f} s avoided, estimated from the others"
    )
    return f"{avoided}; {spent}" if spent else avoided


def _failures(trials: Sequence[SearchTrial]) -> list[str]:
    return [f"trial {trial.number} failed: {trial.reason}" for trial in trials if trial.state == "failed"]


def _nearest(trials: Sequence[SearchTrial]) -> str:
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        return ""
    nearest = min(complete, key=lambda trial: sum(max(0.0, excess) for excess in trial.constraints.values()))
    missed = ", ".join(f"{name} by {excess:.0%}" for name, excess in nearest.constraints.items() if excess > 0)
    return f"; the nearest is trial {nearest.number}, it misses {missed}"
