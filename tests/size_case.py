"""A baseline and measured artifacts, made by hand, that the tests of the size gate share."""

import datetime

from phonefit.pipeline.size.baseline import Baseline, Entry
from phonefit.pipeline.size.measured import Measured
from phonefit.pipeline.size.parts import Anatomy, Part

DAY = datetime.date(2026, 3, 1)
NOW = datetime.datetime(2026, 3, 2, 12, tzinfo=datetime.UTC)
TOOLS = {"executorch": "1.5.0", "torch": "2.13.0"}


def anatomy(weights: int, graph: int = 1000, seed: str = "a") -> Anatomy:
    parts = (
        Part(section="weights", name="conv", kind="tensor", bytes=weights, digest=f"{seed}{weights}"),
        Part(section="graph", name="", kind="operator", bytes=graph),
    )
    return Anatomy(format="pte", sha256=f"{seed}-{weights}-{graph}", bytes=weights + graph, parts=parts)


def measured(
    name: str, weights: int, subject: str = "app.yaml", tools=TOOLS, graph: int = 1000, **measures
) -> Measured:
    return Measured(
        name=name,
        subject=subject,
        path=f"runs/{name}",
        precision="int8",
        tools=tools,
        checkpoint="finetune/abc",
        anatomy=anatomy(weights, graph),
        measures=measures,
    )


def entry(weights: int, subject: str = "app.yaml", graph: int = 1000, **measures) -> Entry:
    return Entry(
        subject=subject,
        sha256=f"a-{weights}-{graph}",
        bytes=weights + graph,
        precision="int8",
        checkpoint="finetune/abc",
        blessed=DAY,
        reason="first",
        sections={"weights": weights, "graph": graph},
        measures=measures,
        tools=TOOLS,
    )


def baseline(limits=(), **artifacts: Entry) -> Baseline:
    return Baseline.model_validate({"limits": list(limits), "artifacts": artifacts})
