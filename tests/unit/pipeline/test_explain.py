"""Explaining a network layer by layer: what is counted, what is asked, and how it is shown."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from phonefit.device_bench.host import HostDevice
from phonefit.device_bench.report import Report
from phonefit.models.artifact import Runtime
from phonefit.models.quantisation import Quantisation
from phonefit.models.spec import Architecture
from phonefit.pipeline.ask import AskRunDevice
from phonefit.pipeline.compress.cost import layer_costs
from phonefit.pipeline.errors import ConversionError, UnknownNameError
from phonefit.pipeline.explain import timing
from phonefit.pipeline.explain.alone import build, checkpoint_alone, picture_size, shapes_of
from phonefit.pipeline.explain.costs import called_layers, costs_of, kind_of_layer
from phonefit.pipeline.explain.plot import TECHNIQUES, heat_map, page
from phonefit.pipeline.explain.result import (
    Effect,
    Explanation,
    float_bytes,
    multiply_adds,
    nanoseconds,
    order_named,
)
from phonefit.pipeline.recipe import BenchConfig
from phonefit.pipeline.tables_explain import explanation_tables, left_alone, percent
from tests.explained_case import EXPLANATION, FIRST, HEAD, SECOND
from tests.tiny import ARCHITECTURE, LABELS, tiny_context
from tests.tiny import build as tiny_network

REPORT = Report.load(Path(__file__).parents[2] / "golden" / "report_1_steady.json")


class Odd(nn.Module):
    """One layer twice, one never, an even kernel, a stride of one axis, a dilation, and a linear layer on rows."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=(2, 1), padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding="same", groups=4)
        self.never = nn.Conv2d(8, 8, 1)
        self.wide = nn.Conv2d(8, 12, 3, dilation=2)
        self.rows = nn.Linear(12, 6)
        self.head = nn.Linear(6, outputs)

    def forward(self, x):
        x = self.wide(self.twice(self.twice(self.stem(x)).relu()))
        return self.head(self.rows(x.flatten(2).transpose(1, 2)).mean(1))


ODD = Architecture(factory="tests.unit.pipeline.test_explain:Odd", outputs=3, height=20, width_pixels=17)


def odd():
    torch.manual_seed(0)
    return called_layers(Odd(3), ODD)


def test_costs_and_shapes_are_those_of_a_forward_pass():
    called = odd()
    assert list(called) == ["stem", "twice", "wide", "rows", "head"]
    assert {name: one.cost for name, one in called.items()} == layer_costs(Odd(3), ODD)
    twice = costs_of("twice", called["twice"])
    assert (twice.kind, twice.output, twice.calls) == ("grouped 3x3", (8, 10, 16), 2)
    assert twice.multiply_adds == 2 * 8 * 2 * 9 * 10 * 16
    assert (twice.float_bytes, twice.int8_bytes) == (4 * (8 * 2 * 9 + 8), 8 * 2 * 9 + 8 * 8)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Linear(3, 4), "linear"),
        (nn.Conv2d(4, 4, 3, stride=2, groups=4), "depthwise 3x3 /2"),
        (nn.Conv2d(4, 8, (1, 5), stride=(1, 2)), "conv 1x5 /1x2"),
    ],
)
def test_kinds_in_words(layer, words):
    assert kind_of_layer(layer) == words


@pytest.mark.parametrize("name", ["stem", "twice", "wide", "head"])
def test_alone_a_layer_gets_the_input_and_gives_the_output_that_it_has_in_the_network(name):
    one = odd()[name]
    for shape, given, gives in zip(shapes_of(one), one.inputs, one.outputs, strict=True):
        network = build(1, json.loads(json.dumps(shape.as_json())))
        layer = network[1] if len(given) > 1 else network[3]
        seen = shapes_seen(layer)
        height, width = picture_size(shape)
        assert min(height, width) >= 8
        assert network(torch.zeros(2, 3, height, width)).shape == (2, 1)
        assert seen == [(given, gives)]
        assert type(layer) is type(one.layer)
        reference = build(1, shape.reference().as_json())
        assert len(reference) == len(network) - 1


def shapes_seen(layer: nn.Module) -> list[tuple[torch.Size, torch.Size]]:
    seen: list[tuple[torch.Size, torch.Size]] = []
    layer.register_forward_hook(lambda _, inputs, outputs: seen.append((inputs[0].shape[1:], outputs.shape[1:])))
    return seen


def test_a_linear_layer_on_rows_is_not_asked_about():
    assert shapes_of(odd()["rows"]) is None


def test_one_shape_is_one_checkpoint_whatever_the_random_state(tmp_path):
    (shape,) = shapes_of(odd()["wide"])
    torch.manual_seed(1)
    first = checkpoint_alone(shape, None, tmp_path / "a")
    torch.manual_seed(2)
    assert checkpoint_alone(shape, None, tmp_path / "b").digest == first.digest
    assert checkpoint_alone(shape, Quantisation(), tmp_path / "c").digest != first.digest
    assert checkpoint_alone(shape.reference(), None, tmp_path / "d").digest != first.digest
    height, width = picture_size(shape)
    assert first.load()(torch.zeros(1, 3, height, width)).shape == (1, 1)


def ask_device(tmp_path, runtime: Runtime = "onnx"):
    return AskRunDevice(tiny_context(tmp_path), HostDevice(), runtime, BenchConfig(), None, None, {})


def report_of(microseconds: float, trusted: bool = True) -> Report:
    latency = REPORT.figures["latency"].model_copy(update={"samples": (1e3 * microseconds,) * 3})
    doubts = () if trusted else ({"reason": "busy", "remedy": "wait"},)
    return Report.model_validate(
        {**REPORT.as_json(), "figures": {**REPORT.figures, "latency": latency}, "untrusted": doubts}
    )


def test_each_shape_is_asked_once_and_the_reference_is_subtracted(tmp_path, monkeypatch):
    asked = []

    def answer(shape, quantisation, ask):
        asked.append((shape, quantisation))
        return report_of(5 if not shape.outputs else 5 + shape.outputs, trusted=bool(shape.outputs))

    monkeypatch.setattr(timing, "_asked", answer)
    architecture = ARCHITECTURE
    layers = called_layers(tiny_network(len(LABELS)), architecture)
    layers["again"] = layers["4"]
    found = timing.times_alone(layers, ask_device(tmp_path), Quantisation(float_layers=("3", "again")))
    assert found.nanoseconds == {
        "0": 16e3,
        "3.depthwise": 16e3,
        "3.pointwise": 16e3,
        "4": 32e3,
        "9": 3e3,
        "again": 32e3,
    }
    assert len(asked) == len(set(asked)) == 5 + 1 + 5 - 1  # both int8 and float are asked of "4" and its input
    assert found.timing.asked == len(asked)
    assert found.timing.doubtful == 4 and found.timing.precision == "int8"
    assert {quantisation for shape, quantisation in asked if shape.outputs and shape.groups > 1} == {None}


def test_a_layer_called_twice_takes_the_time_of_both_calls_and_noise_is_no_negative_time(tmp_path, monkeypatch):
    monkeypatch.setattr(
        timing, "_asked", lambda shape, way, ask: report_of({"8": 7, "12": 4}.get(str(shape.outputs), 5))
    )
    found = timing.times_alone(odd(), ask_device(tmp_path), None)
    assert found.nanoseconds == {"stem": 2e3, "twice": 4e3, "wide": 0.0, "head": 0.0}
    assert found.notes == ("no time: rows works on more than vectors",)
    assert found.timing.precision == "fp32"


def test_a_layer_that_cannot_be_converted_alone_has_no_time_and_a_note(tmp_path, monkeypatch):
    def answer(shape, quantisation, ask):
        if shape.outputs == 12:
            raise ConversionError("no kernel for it")
        return report_of(6 if shape.outputs else 5)

    monkeypatch.setattr(timing, "_asked", answer)
    found = timing.times_alone(odd(), ask_device(tmp_path), None)
    assert "wide" not in found.nanoseconds and found.nanoseconds["stem"] == 1e3
    assert "no time: wide alone cannot be converted: no kernel for it" in found.notes


def test_shares_sum_to_one_over_the_layers_that_have_a_value():
    for of in (float_bytes, multiply_adds, nanoseconds):
        assert sum(EXPLANATION.shares(of).values()) == pytest.approx(1)
    assert EXPLANATION.shares(nanoseconds) == {FIRST.name: 0.9, SECOND.name: 0.1}
    untimed = EXPLANATION.model_copy(update={"layers": (HEAD,)})
    assert untimed.shares(nanoseconds) == {}


@pytest.mark.parametrize(
    ("order", "layers"),
    [
        ("time", [FIRST, SECOND, HEAD]),
        ("macs", [FIRST, SECOND, HEAD]),
        ("bytes", [HEAD, FIRST, SECOND]),
        ("int8", [SECOND, FIRST, HEAD]),
        ("prune", [FIRST, SECOND, HEAD]),
        ("decompose", [FIRST, SECOND, HEAD]),
        ("network", [FIRST, SECOND, HEAD]),
    ],
)
def test_orders(order, layers):
    assert EXPLANATION.ordered(order_named(order)) == layers


def test_an_unknown_order_says_which_there_are():
    with pytest.raises(UnknownNameError, match="did you mean 'macs'"):
        order_named("mac")


def printed(most: int | None) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(explanation_tables(EXPLANATION, "bytes", most))
    return console.file.getvalue()


def test_the_tables_fit_eighty_columns_and_say_how_the_figures_were_made():
    text = printed(None)
    assert max(map(len, text.splitlines())) <= 80
    said = " ".join(text.split())
    for words in (
        FIRST.name,
        "96x48x48",
        "90.0",
        "svd 8",
        "42%",
        ">999",
        "modelled, tflite int8 on cortex-a76",
        "1 of 4",
    ):
        assert words in said, words
    assert "--all" not in said
    assert "1 of 3 layers, by bytes; --all shows all" in " ".join(printed(1).split())
    assert SECOND.name not in printed(1).split("1 of 3")[0]


def test_reasons_are_told_once_each():
    assert left_alone([HEAD, HEAD, SECOND]) == [
        "int8: it is called more than once: 2 layers",
        "prune: its channels are the network's outputs: 2 layers",
        "decompose: factors would not save enough: 2 layers",
        f"decompose: they are grouped or depthwise: {SECOND.name}",
    ]


@pytest.mark.parametrize(
    ("error", "text"), [(0.0, "<0.01"), (0.00123, "0.12"), (0.0999, "9.99"), (0.5, "50"), (3.0, "300"), (99.0, ">999")]
)
def test_errors_in_per_cent(error, text):
    assert percent(Effect(error=error)) == text
    assert percent(None) == "-"


class Page(HTMLParser):
    """Notes what a page would load, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = False

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "script"
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)
        else:
            self.text += data


def test_the_page_holds_everything_and_loads_nothing():
    content = Page()
    content.feed(page(EXPLANATION))
    assert content.loads == []
    assert any("plotly.js v" in script[:200] for script in content.scripts)
    (drawing,) = [
        script for script in content.scripts if "Plotly.newPlot(" in script and "plotly.js v" not in script[:200]
    ]
    traces, _ = json.JSONDecoder().raw_decode(
        drawing[re.search(r"Plotly\.newPlot\(\s*\"[^\"]+\",\s*", drawing).end() :]
    )
    bars = {trace["name"]: trace for trace in traces if trace["type"] == "bar"}
    assert set(bars) == {"float32", "int8", "multiply-adds", "time"}
    assert bars["time"]["y"] == [layer.name for layer in EXPLANATION.layers]
    assert bars["time"]["x"] == [900.0, 100.0, None]
    (heat,) = [trace for trace in traces if trace["type"] == "heatmap"]
    assert heat["x"] == list(TECHNIQUES) and len(heat["z"]) == 3
    assert heat["z"][2] == [None] * 4
    assert "modelled, tflite int8" in content.text


def test_the_heat_map_says_what_there_is_and_why_there_is_nothing():
    errors, words = heat_map(EXPLANATION)
    assert errors[0] == [0.0003, 0.1, 12.0, 0.36]
    assert "svd rank 8, 58% of the multiply-adds" in words[0][3]
    assert "loss 0.02" in words[0][1]
    assert words[2][1] == "left alone: its channels are the network&#x27;s outputs"


def test_without_a_device_there_is_no_column_of_times():
    untimed = EXPLANATION.model_copy(update={"timing": None})
    assert '"name":"time"' not in page(untimed)
    console = Console(file=io.StringIO(), width=80)
    console.print(explanation_tables(untimed, "macs", None))
    assert "time" not in console.file.getvalue().split("error of the")[0]


def test_names_of_a_persons_own_do_not_become_markup():
    odd_name = EXPLANATION.model_copy(update={"network": "</script><b>mine</b>", "notes": ("<img src=x>",)})
    content = Page()
    content.feed(page(odd_name))
    assert content.loads == []


def test_an_explanation_survives_json():
    assert Explanation.model_validate(json.loads(json.dumps(EXPLANATION.as_json()))) == EXPLANATION
