"""Latency in the gate: it never repeats exactly, so the blessed file and the present one are measured in turn."""

from collections.abc import Sequence
from pathlib import Path

from phonefit.pipeline.context import Progress
from phonefit.pipeline.errors import PhonefitError
from phonefit.pipeline.size.baseline import Baseline
from phonefit.pipeline.size.gate import Finding, GateReport, Level, Result, resorted, with_finding
from phonefit.pipeline.size.limits import Rule, limited_measures, rule_for
from phonefit.pipeline.size.measured import Measured, kept_copy
from phonefit.pipeline.size.sources import Broken
from phonefit.pipeline.store import Store

MEASURE = "latency"
ROUNDS = 8


def with_latency(
    report: GateReport, measured: Sequence[Measured | Broken], baseline: Baseline, runs: Path, progress: Progress
) -> GateReport:
    """The report with the latency of each artifact for which a limit names it.

    Where the blessed file is not at hand, or is the same, latency is left out of the gate and a note says so.
    """
    present = {item.name: item for item in measured if isinstance(item, Measured)}
    results, notes = [], []
    for result in report.results:
        item = present.get(result.name)
        if item is not None and MEASURE in limited_measures(baseline.limits, result.name):
            rule = rule_for(baseline.limits, result.name, MEASURE)
            result, note = _judged(result, item, baseline, rule, Store(runs), progress)
            notes += [f"{result.name}: latency is not gated: {note}"] if note else []
        results.append(result)
    return resorted(report, results, notes)


def latency_finding(ratio: float, low: float, high: float, rule: Rule) -> Finding:
    """Hold a ratio of latencies against its rule: only when the whole interval is beyond a limit does it count."""
    level: Level = "ok"
    reasons = []
    for name, amount in (("fail", rule.fail), ("warn", rule.warn)):
        allowed = amount.of(1.0)
        if allowed is not None and low > 1 + allowed:
            level = "fail" if name == "fail" else "warn"
            reasons.append(f"slower by more than {amount} ({name}), 95 % interval {low:.3f} to {high:.3f}")
            break
    return Finding(
        measure=MEASURE, unit="ratio", old=1.0, new=ratio, low=low, high=high, level=level, reasons=tuple(reasons)
    )


def _judged(
    result: Result, item: Measured, baseline: Baseline, rule: Rule, store: Store, progress: Progress
) -> tuple[Result, str]:
    from phonefit.device_bench.host import HostDevice
    from phonefit.device_bench.interleave import interleave

    blessed, path = baseline.artifacts.get(result.name), Path(item.path)
    if blessed is None or result.same_file:
        return result, "" if result.same_file else "there is no blessed file yet"
    old = kept_copy(blessed.sha256, path.suffix, store)
    if old is None:
        return result, f"the blessed file is not in {store.root}; keep the runs folder, or bless on this machine"
    device = HostDevice()
    try:
        device.prepare()
        with progress.stage(f"measure {result.name} against its blessed file in turn", 2 * ROUNDS) as advance:
            found = interleave(old, path, device, rounds=ROUNDS, advance=advance)
    except PhonefitError as error:
        return result.model_copy(update={"status": "broken", "error": str(error)}), ""
    finally:
        device.cleanup()
    return with_finding(result, latency_finding(found.ratio, found.low, found.high, rule)), ""
