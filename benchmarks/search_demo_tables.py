"""Tables and the plot of benchmarks/search_demo.py."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from search_demo_lookup import EPOCHS
from search_demo_replay import MOST, RULES, TRIALS, Lookup, Run
from search_rows import median_interval

from phonefit.pipeline.search.fidelity import rungs

MARKS = (5, 10, 20, 30, 40)
LONGER = 10
RUNGS = rungs(EPOCHS, factor=3, least=1)
PARTS = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Of the trial-seconds that the median random search takes for all of its trials."""


def facts(lookup: Lookup) -> list[str]:
    """What the space is like."""
    entries = [known.entry for known in lookup.points.values()]
    losses = lookup.losses(None)
    front = sum(
        not any((other <= row).all() and (other < row).any() for other in losses) for row in np.unique(losses, axis=0)
    )
    qualities, instructions = [one.quality for one in entries], [one.instructions / 1e6 for one in entries]
    stages = {stage.key: stage for entry in entries for stage in entry.stages}
    lines = [
        f"- {len(entries)} points; quality {min(qualities):.3f} to {max(qualities):.3f}, "
        f"{min(instructions):.2f} to {max(instructions):.2f} M instructions; {front} points on the Pareto front",
        f"- processor seconds of all stages, each once: {sum(stage.seconds for stage in stages.values()):.0f}",
    ]
    names = dict.fromkeys(stage.name for stage in stages.values())
    each = ", ".join(
        f"{name} {np.median([stage.seconds for stage in stages.values() if stage.name == name]):.1f}" for name in names
    )
    trainings = {entry.stages[0].key: entry.epochs for entry in entries}.values()
    orders = ", ".join(f"{_rank_correlation(trainings, rung):.2f} after epoch {rung}" for rung in sorted(RUNGS))
    lines.append(f"- rank correlation of a training's quality at a rung of promotion with that at its end: {orders}")
    return [*lines, f"- median seconds of a stage: {each}"]


def _rank_correlation(trainings: Collection[Sequence[float]], epoch: int) -> float:
    early, late = [max(one[: epoch + 1]) for one in trainings], [max(one) for one in trainings]
    return float(spearmanr(early, late).statistic)


def by_trials(runs: Sequence[Run]) -> list[str]:
    """Share of the hypervolume after so many trials: median and its 95 % interval over the seeds."""
    lines = [
        "| sampler | seeds | " + " | ".join(f"@{mark}" for mark in MARKS) + " |",
        "|---|---|" + "---|" * len(MARKS),
    ]
    for name, own in _plain(runs).items():
        cells = [_cell([run.shares[mark - 1] for run in own]) for mark in MARKS]
        lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} |")
    return lines


def by_seconds(runs: Sequence[Run]) -> list[str]:
    """Share of the hypervolume after so many trial-seconds."""
    plain = _plain(runs)
    whole = float(np.median([run.seconds[TRIALS - 1] for run in plain["random"]]))
    marks = [part * whole for part in PARTS]
    head = " | ".join(f"@{mark:.0f} s" for mark in marks)
    lines = [f"| sampler | {head} | {TRIALS} trials took |", "|---|" + "---|" * (len(marks) + 1)]
    for name, own in plain.items():
        cells = [_cell([share_at(run, mark) for run in own]) for mark in marks]
        took = np.median([run.seconds[TRIALS - 1] for run in own])
        lines.append(f"| {name} | {' | '.join(cells)} | {took:.0f} s |")
    return lines


def share_at(run: Run, seconds: float) -> float:
    """The share of the hypervolume when so many trial-seconds were spent."""
    done = sum(one <= seconds for one in run.seconds[:TRIALS])
    return run.shares[done - 1] if done else 0.0


def by_rules(runs: Sequence[Run], sampler: str) -> list[str]:
    """Each rule against no rule, of the same sampler and seed.

    What 40 trials cost; what it cost until the search had the hypervolume of the plain one's 40 trials, as a share of
    what the plain one took until it had it, and of all its trials; the same if training took LONGER times as long.
    """
    heads = (
        "limit", "rules", "ended early, of 40", "trial-seconds of 40", "hypervolume after 40",
        "until as good as plain, of plain's until then", f"… training {LONGER}x as long", "… of plain's 40 trials",
        f"not as good in {MOST}",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    chosen = [run for run in runs if run.sampler == sampler]
    for limit in dict.fromkeys(run.instructions for run in chosen):
        plain = {run.seed: run for run in chosen if run.rules == "none" and run.instructions == limit}
        for rules in RULES:
            own = [run for run in chosen if (run.rules, run.instructions) == (rules, limit)]
            pairs = [(run, plain[run.seed]) for run in own if run.seed in plain]
            if not pairs:
                continue
            longer = [(run.longer_training(LONGER), other.longer_training(LONGER)) for run, other in pairs]
            cells = [
                "none" if limit is None else f"{limit / 1e6:g} M",
                rules,
                f"{np.median([sum(map(bool, run.ended[:TRIALS])) for run, _ in pairs]):.0f}",
                _cell([run.seconds[TRIALS - 1] / other.seconds[TRIALS - 1] for run, other in pairs]),
                _cell([run.shares[TRIALS - 1] for run, _ in pairs]),
                _cell([_as_good(run, other) / _as_good(other, other) for run, other in pairs]),
                _cell([_as_good(run, other) / _as_good(other, other) for run, other in longer]),
                _cell([_as_good(run, other) / other.seconds[TRIALS - 1] for run, other in pairs]),
                f"{sum(not np.isfinite(_as_good(run, other)) for run, other in pairs)} of {len(pairs)}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _as_good(run: Run, other: Run) -> float:
    return seconds_to(run, other.shares[TRIALS - 1])


def seconds_to(run: Run, share: float) -> float:
    """Trial-seconds until the search had this share of the hypervolume; infinite where it never had."""
    return next((spent for spent, had in zip(run.seconds, run.shares, strict=True) if had >= share), np.inf)


def plot(runs: Sequence[Run], path: Path) -> None:
    """Median share of the hypervolume against trials and against trial-seconds, with the quartiles as a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    plain = _plain(runs)
    whole = max(float(np.median([run.seconds[TRIALS - 1] for run in own])) for own in plain.values())
    grid = np.linspace(0, whole, 200)
    for name, own in plain.items():
        for axes, places, rows in (
            (left, np.arange(1, TRIALS + 1), [run.shares[:TRIALS] for run in own]),
            (right, grid, [[share_at(run, second) for second in grid] for run in own]),
        ):
            low, middle, high = np.quantile(np.array(rows), (0.25, 0.5, 0.75), axis=0)
            (line,) = axes.plot(places, middle, drawstyle="steps-post", label=name)
            axes.fill_between(places, low, high, step="post", alpha=0.12, color=line.get_color(), linewidth=0)
    left.set(xlabel="trials", ylabel="share of the hypervolume", ylim=(0.6, 1.005), title="phonefit's own space, demo")
    right.set(xlabel="trial-seconds (processor)", title="the same against time")
    left.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def _plain(runs: Sequence[Run]) -> dict[str, list[Run]]:
    chosen = [run for run in runs if run.rules == "none" and run.instructions is None]
    names = dict.fromkeys(run.sampler for run in chosen)
    return {name: [run for run in chosen if run.sampler == name] for name in names}


def _cell(values: Sequence[float]) -> str:
    low, high = median_interval(values)
    return f"{np.median(values):.1%} [{low:.1%}, {high:.1%}]".replace("inf%", "∞")
