"""Verdicts of the size gate: growth, budgets, noise, missing and new artifacts, exit codes, changed tools."""

import datetime

import pytest

from phonefit.pipeline.size.check import with_creep
from phonefit.pipeline.size.gate import changed_tools, finding_of, judge, measures_wanted
from phonefit.pipeline.size.history import lines_of
from phonefit.pipeline.size.latency import latency_finding
from phonefit.pipeline.size.limits import rule_for
from phonefit.pipeline.size.sources import Broken
from tests.size_case import NOW, baseline, entry, measured

ONE_AND_THREE = ({"warn": "1%", "fail": "3%"},)


def statuses(report):
    return {result.name: result.status for result in report.results}


@pytest.mark.parametrize(
    ("weights", "status", "code", "strict"),
    [
        (99_000, "ok", 0, 0),
        (90_000, "ok", 0, 0),
        (100_000, "ok", 0, 0),
        (100_001, "warn", 0, 4),
        (102_001, "fail", 1, 1),
    ],
)
def test_growth_warns_and_fails(weights, status, code, strict):
    base = baseline(ONE_AND_THREE, a=entry(99_000))  # 100,000 bytes with the graph; 101,000 is 1 % more
    report = judge([measured("a", weights)], base, whole=True)
    assert statuses(report) == {"a": status}
    assert (report.exit_code(strict=False), report.exit_code(strict=True)) == (code, strict)


def test_a_budget_holds_whatever_the_baseline_says():
    base = baseline([{"budget": "90KB"}], a=entry(99_000))
    report = judge([measured("a", 98_000)], base, whole=True)
    assert statuses(report) == {"a": "fail"}
    assert "budget of 90,000" in report.results[0].findings[0].reasons[0]
    assert statuses(judge([measured("b", 98_000)], base, whole=False))["b"] == "fail"


def test_a_new_artifact_and_a_gone_one_warn():
    base = baseline(a=entry(10), b=entry(10, subject="other.yaml"))
    report = judge([measured("c", 10)], base, whole=True)
    assert statuses(report) == {"a": "warn", "b": "warn", "c": "warn"}
    assert statuses(judge([measured("c", 10)], base, whole=False)) == {"a": "warn", "c": "warn"}
    assert statuses(judge([Broken("app.yaml", "app.yaml", "x")], base, whole=False)) == {"app.yaml": "broken"}


def test_what_is_not_measured_outweighs_what_failed():
    base = baseline(ONE_AND_THREE, a=entry(1000), b=entry(1000))
    report = judge([measured("a", 9000), Broken("b", "b", "cut off")], base, whole=True)
    assert [result.status for result in report.results] == ["broken", "fail"]
    assert report.exit_code(strict=False) == 3


def test_worst_first_and_totals_of_what_has_a_baseline():
    base = baseline(ONE_AND_THREE, a=entry(9_000), b=entry(9_000), c=entry(9_000))
    found = [measured("a", 9_000), measured("b", 9_500), measured("c", 12_000), measured("d", 50_000)]
    report = judge(found, base, whole=True)
    assert [result.name for result in report.results] == ["c", "b", "d", "a"]
    assert (report.old_bytes, report.new_bytes) == (30_000, 33_500)


def test_sections_and_other_measures_are_gated_where_named():
    limits = [{"measure": "section:weights", "fail": "1%"}, {"fail": "50%", "warn": "50%"}]
    report = judge([measured("a", 1_020)], baseline(limits, a=entry(1_000)), whole=True)
    assert report.results[0].finding("section:weights").level == "fail"
    assert report.results[0].finding("bytes").level == "ok"
    assert judge([measured("a", 1_020)], baseline(limits[1:], a=entry(1_000)), True).status == "ok"


@pytest.mark.parametrize(
    ("measure", "old", "new", "level"),
    [
        ("delegated", 0.98, 0.98, "ok"),
        ("delegated", 0.98, 1.0, "ok"),
        ("delegated", 0.98, 0.97, "warn"),
        ("delegated", 0.98, 0.90, "fail"),
        ("partitions", 1, 2, "warn"),
        ("partitions", 1, 4, "fail"),
        ("instructions", 1e6, 1.005e6 + 1, "warn"),
        ("instructions", 1e6, 1.005e6, "ok"),
        ("peak_memory", 1e5, 1e5 + 4096, "ok"),  # one page is noise, though it is 4 %
        ("peak_memory", 1e5, 1e5 + 8192, "fail"),
    ],
)
def test_each_measure_has_its_own_limits_and_noise(measure, old, new, level):
    assert finding_of(measure, old, new, rule_for([], "a", measure)).level == level


def test_a_budget_of_what_should_be_high_is_the_least_value():
    rule = rule_for(baseline([{"measure": "delegated", "budget": 0.95}]).limits, "a", "delegated")
    assert finding_of("delegated", None, 0.96, rule).level == "ok"
    assert finding_of("delegated", None, 0.94, rule).level == "fail"


@pytest.mark.parametrize(
    ("low", "high", "level"), [(0.9, 1.4, "ok"), (1.04, 1.6, "ok"), (1.06, 1.3, "warn"), (1.11, 1.2, "fail")]
)
def test_latency_fails_only_when_its_whole_interval_is_beyond(low, high, level):
    assert latency_finding((low + high) / 2, low, high, rule_for([], "a", "latency")).level == level


def test_changed_tools_are_told_where_both_sides_are_known():
    old, new = {"torch": "2.12", "onnx": "1"}, {"torch": "2.13", "torchao": "0.18", "onnx": "1"}
    assert changed_tools(old, new) == {"torch": ("2.12", "2.13"), "torchao": ("", "0.18")}
    assert changed_tools({}, new) == {}
    assert changed_tools({"torch": "2.13.0+cpu"}, {"torch": "2.13.0"}) == {}


def test_measures_wanted_are_those_blessed_and_those_limited():
    base = baseline([{"match": "app/*", "measure": "partitions"}], **{"app/a.pte": entry(1, instructions=5)})
    assert measures_wanted(base, "app/a.pte") == ("instructions", "partitions")
    assert measures_wanted(base, "app/b.pte") == ("partitions",)
    assert measures_wanted(base, "b.pte") == ()


def test_another_precision_is_told():
    item = measured("a", 1000).model_copy(update={"precision": "fp32"})
    assert judge([item], baseline(a=entry(1000)), True).results[0].remarks == ("precision was int8, is fp32",)


def test_creep_warns_where_a_period_is_given_though_every_step_was_blessed():
    history = [
        line
        for day in range(20)
        for line in lines_of([measured("a", 99_000 + 400 * day)], "bless", NOW + day * datetime.timedelta(days=1))
    ]
    base = baseline([{"creep": "5%"}], a=entry(99_000 + 400 * 19))
    report = judge([measured("a", 99_000 + 400 * 19)], base, whole=True)
    (before,) = report.results
    after = with_creep(before, base, history, since=None)
    assert (before.status, after.status) == ("ok", "warn")
    assert "+7.60%" in after.remarks[0]
    assert with_creep(before, base, history, since=5).status == "ok"
