"""The reports of the size gate, held against stored ones: PHONEFIT_GOLDEN=write writes them anew."""

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from phonefit.pipeline.size.gate import GateReport, ToolEffect, judge, resorted
from phonefit.pipeline.size.report import bless_command, junit, markdown
from phonefit.pipeline.size.sources import Broken
from tests.size_case import TOOLS, baseline, entry, measured

GOLDEN = Path(__file__).parents[2] / "golden"
NEWER = {"executorch": "1.5.1", "torch": "2.13.0"}


def mixed_report() -> GateReport:
    limits = [{"warn": "1%", "fail": "3%"}, {"match": "b|*", "budget": "20KB"}]
    base = baseline(
        limits,
        **{"b|d.pte": entry(9_000), "app/w.pte": entry(9_000), "app/same.pte": entry(9_000, instructions=4e6)},
        **{"x.onnx": entry(9_000, "x.onnx"), "gone.pte": entry(5_000)},
    )
    found = [
        measured("b|d.pte", 30_000, tools=NEWER),
        measured("app/w.pte", 9_200, graph=1_000, tools=NEWER),
        measured("app/same.pte", 9_000, instructions=4.5e6),
        measured("new.pte", 700, subject="new file.pte"),
        Broken("x.onnx", "x.onnx", "x.onnx: broken at byte 7: no model"),
    ]
    report = judge(found, base, whole=True, notes=["app/w.pte: latency is not gated: no copy"])
    effects = {
        "b|d.pte": ToolEffect(bytes=11_000),
        "app/w.pte": ToolEffect(bytes=None, note="the blessed checkpoint is not in the store"),
    }
    return resorted(report, [r.model_copy(update={"tool_effect": effects.get(r.name)}) for r in report.results])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("size_report.md", markdown(mixed_report(), "ci/sizes.toml", "runs")),
        ("size_report.xml", junit(mixed_report(), "ci/sizes.toml", "runs", strict=False)),
    ],
)
def test_reports_are_as_stored(name, text):
    if os.environ.get("PHONEFIT_GOLDEN") == "write":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def test_tools_come_first_and_the_worst_before_the_rest():
    text = markdown(mixed_report(), "sizes.toml", "runs")
    places = [
        text.index(part) for part in ("The tools changed", "| `x.onnx`", r"| `b\|d.pte`", "| `app/w.pte`", "**total**")
    ]
    assert places == sorted(places)
    assert "executorch 1.5.0 → 1.5.1" in text
    assert "torch 2.13" not in text
    assert "the tools did +1,000 bytes, the model +20,000 bytes" in text.replace("Of", "of")


def test_the_command_to_accept_names_exactly_what_changed():
    assert bless_command(mixed_report(), "sizes.toml", "out") == (
        "phonefit size bless app.yaml 'new file.pte' --runs out --reason \"why this growth is right\""
    )
    fine = judge([measured("a", 10)], baseline(a=entry(10)), whole=True)
    assert bless_command(fine, "sizes.toml", "runs") == ""
    assert "accept" not in markdown(fine, "sizes.toml", "runs")


def test_changed_tools_alone_neither_fail_nor_hide():
    report = judge([measured("a", 10, tools={**TOOLS, "torch": "2.14"})], baseline(a=entry(10)), whole=True)
    assert report.status == "ok"
    assert markdown(report, "sizes.toml", "runs").splitlines()[2].startswith("> **The tools changed")


@pytest.mark.parametrize(("strict", "failures"), [(False, "2"), (True, "5")])
def test_warnings_are_failures_of_junit_only_when_strict(strict, failures):
    root = ElementTree.fromstring(junit(mixed_report(), "sizes.toml", "runs", strict))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("6", failures, "1")
    assert len(root.findall(".//failure")) == int(failures)
    assert root.find(".//error").get("message") == "x.onnx: broken at byte 7: no model"


def test_an_empty_report_says_so():
    report = judge([], baseline(), whole=True)
    assert markdown(report, "sizes.toml", "runs").startswith("## Sizes: nothing to check")
    assert ElementTree.fromstring(junit(report, "sizes.toml", "runs", False)).get("tests") == "0"
