"""The explanation of a checkpoint's layers as tables. Nothing here computes anything."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from phonefit.pipeline.explain.captions import captions
from phonefit.pipeline.explain.result import (
    SHARES_PRUNED,
    Effect,
    Explanation,
    LayerExplanation,
    Order,
    float_bytes,
    multiply_adds,
    nanoseconds,
)
from phonefit.pipeline.tables import table

LEAST_PERCENT = 0.01
LONGEST_NAME = 36  # in the second table; the first has it whole


def explanation_tables(found: Explanation, by: Order, most: int | None) -> RenderableType:
    """What each layer costs, and what each technique would do to it; fits 80 columns.

    Args:
        most: layers that are shown; None for all.
    """
    ordered = found.ordered(by)
    shown = ordered if most is None else ordered[:most]
    lines = [Text(line, "dim") for line in captions(found)]
    lines += [Text(f"left alone, {line}", "dim") for line in left_alone(found.layers)]
    if len(shown) < len(ordered):
        lines.insert(0, Text(f"{len(shown)} of {len(ordered)} layers, by {by}; --all shows all", "dim"))
    return Group(_costs(found, shown), _effects(shown), *lines)


def _costs(found: Explanation, shown: Sequence[LayerExplanation]) -> RenderableType:
    timed = found.timing is not None
    columns = ("output", "float\nkB", "int8\nkB", "bytes\n%", "MACs\nM", "MACs\n%", *(("time\n%",) if timed else ()))
    result = table("layer", *columns, title="what each layer costs")
    result.padding = (0, 0)  # names of layers are long
    shares = [found.shares(float_bytes), found.shares(multiply_adds), found.shares(nanoseconds)]
    for layer in shown:
        size, work, time = (_share(one, layer.name) for one in shares)
        result.add_row(
            layer.name,
            "x".join(map(str, layer.output)),
            f"{layer.float_bytes / 1e3:,.0f}" if layer.float_bytes >= 1e4 else f"{layer.float_bytes / 1e3:.1f}",
            f"{layer.int8_bytes / 1e3:,.0f}" if layer.int8_bytes >= 1e4 else f"{layer.int8_bytes / 1e3:.1f}",
            size,
            f"{layer.multiply_adds / 1e6:.2f}" if layer.multiply_adds < 1e8 else f"{layer.multiply_adds / 1e6:,.0f}",
            work,
            *((time,) if timed else ()),
        )
    return result


def _effects(shown: Sequence[LayerExplanation]) -> RenderableType:
    pruned = (f"prune\n{share:.0%}" for share in SHARES_PRUNED)
    title = "error of the network's outputs (% of their variance) when one layer is changed"
    result = table("layer", "int8", *pruned, "factors", "MACs\nsaved", "error", title=title)
    result.padding = (0, 0)
    for layer in shown:
        one = layer.decompose
        effects = layer.prune or (None,) * len(SHARES_PRUNED)
        result.add_row(
            layer.name if len(layer.name) <= LONGEST_NAME else f"…{layer.name[1 - LONGEST_NAME :]}",
            percent(layer.int8),
            *(percent(effect) for effect in effects),
            "-" if one is None else f"{one.method.replace('tensor_train', 'tt')} {'x'.join(map(str, one.ranks))}",
            "-" if one is None else f"{1 - one.multiply_adds / layer.multiply_adds:.0%}",
            percent(one),
        )
    return result


def percent(effect: Effect | None) -> str:
    """An error in per cent, in five places; a dash where the layer is left alone."""
    if effect is None:
        return "-"
    value = 100 * effect.error
    if value < LEAST_PERCENT:
        return f"<{LEAST_PERCENT}"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}" if value < 1000 else ">999"


def left_alone(layers: Iterable[LayerExplanation]) -> list[str]:
    """One line for each technique and reason, with the layers."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        for technique, reason in (
            ("int8", layer.int8_left),
            ("prune", layer.prune_left),
            ("decompose", layer.decompose_left),
        ):
            if reason:
                found.setdefault(f"{technique}: {reason}", []).append(layer.name)
    return [f"{why}: {names[0] if len(names) == 1 else f'{len(names)} layers'}" for why, names in found.items()]


def _share(shares: Mapping[str, float], name: str) -> str:
    return f"{100 * shares[name]:.1f}" if name in shares else "-"
