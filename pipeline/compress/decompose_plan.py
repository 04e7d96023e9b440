"""Which layers a decomposition replaces, and by what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from phonefit.models.layers import in_layers
from phonefit.models.tasks.task import Task
from phonefit.pipeline.compress.cost import LayerCost, parameters
from phonefit.pipeline.compress.factors import METHODS, Factorisation, Kind, Layer, Ranks
from phonefit.pipeline.compress.layer_inputs import sample_inputs
from phonefit.pipeline.compress.ranks import Option, allocate, energy_ranks, levels, rounded, vbmf_ranks
from phonefit.pipeline.compress.sensitivity import sensitivity
from phonefit.pipeline.context import Advance, Progress, SilentProgress
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import DecomposeConfig, FactorMethod

AUTO: Mapping[Kind, FactorMethod] = {"linear": "svd", "pointwise": "svd", "spatial": "tucker"}
AUTO_OF_BUDGET: Mapping[Kind, tuple[FactorMethod, ...]] = {
    "linear": ("svd",),
    "pointwise": ("svd",),
    "spatial": ("svd", "tucker", "tensor_train"),
}
"""CP is left out: it is slow to find, and recovers worse."""
PICTURES = 32  # that a sensitivity is measured on
NO_SAVING = "factors would not save enough"


@dataclass(frozen=True)
class Replacement:
    """What a layer is replaced by.

    Attributes:
        error: relative, of the outputs on the calibration pictures, or of the weights where these do not count.
    """

    layer: Layer
    method: FactorMethod
    ranks: Ranks
    layers: nn.Sequential
    error: float
    multiply_adds: int
    parameters: int

    def as_json(self) -> dict[str, JsonValue]:
        """For the lineage."""
        return {
            "layer": self.layer.name,
            "method": self.method,
            "ranks": list(self.ranks),
            "error": round(self.error, 6),
            "multiply_adds": [self.layer.cost.multiply_adds, self.multiply_adds],
            "parameters": [self.layer.weight.numel(), self.parameters],
        }


@dataclass(frozen=True)
class Plan:
    """Replacements by layer, and for the layers that stay: reason -> names."""

    replacements: Mapping[str, Replacement]
    left: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Study:
    """What a plan may look at besides the weights: float32 pictures [N, 3, height, width] and the task."""

    pictures: Tensor
    task: Task
    seed: int = 0
    progress: Progress = SilentProgress()  # noqa: RUF009  # it has no state


def plan_replacements(
    network: nn.Module, config: DecomposeConfig, costs: Mapping[str, LayerCost], study: Study
) -> Plan:
    """Choose factors for the layers of `network`, which is not changed.

    Raises:
        RecipeError: the target cannot be reached.
    """
    left: dict[str, list[str]] = {}
    layers: list[Layer] = []
    names = [name for name in costs if not _obstacle(network.get_submodule(name), name, config, left)]
    inputs = sample_inputs(network, names, study.pictures, study.seed) if config.aware else {}
    for name in names:
        module = network.get_submodule(name)
        assert isinstance(module, nn.Conv2d | nn.Linear)
        layers.append(Layer(name, module, costs[name], inputs.get(name)))
    if config.ranks == "budget":
        chosen = _within_budget(network, layers, config, costs, study, left)
    else:
        with study.progress.stage("decompose: ranks", len(layers)) as advance:
            chosen = _layer_by_layer(layers, config, left, advance)
    return Plan({name: one for name in names if (one := chosen.get(name))}, left)


def _obstacle(module: nn.Module, name: str, config: DecomposeConfig, left: dict[str, list[str]]) -> bool:
    """Whether a layer stays whatever its spectrum; the reason is added to `left` where it is worth telling."""
    if in_layers(name, config.keep) or type(module) not in (nn.Conv2d, nn.Linear):
        return True
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        left.setdefault("they are grouped or depthwise", []).append(name)
        return True
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return not bool(module.weight.any())


def _layer_by_layer(
    layers: Sequence[Layer], config: DecomposeConfig, left: dict[str, list[str]], advance: Advance
) -> dict[str, Replacement]:
    chosen: dict[str, Replacement] = {}
    for layer in layers:
        method = AUTO[layer.kind] if config.method == "auto" else config.method
        factorisation = METHODS[method][layer.kind](layer)
        ranks = vbmf_ranks(factorisation) if config.ranks == "vbmf" else energy_ranks(factorisation, config.energy)
        found = None if ranks is None else _affordable(factorisation, ranks, config.least_saving)
        if ranks is None:
            left.setdefault("VBMF takes all of them for noise", []).append(layer.name)
        elif found is None:
            left.setdefault(NO_SAVING, []).append(layer.name)
        elif (replacement := _replacement(factorisation, found)) is None:
            left.setdefault(f"{method} diverges there", []).append(layer.name)
        else:
            chosen[layer.name] = replacement
        advance(1)
    return chosen


def _affordable(factorisation: Factorisation, ranks: Ranks, least_saving: float) -> Ranks | None:
    """The ranks rounded to what runs well, or as they are, or None where both save too little."""
    allowed = (1 - least_saving) * factorisation.layer.cost.multiply_adds
    candidates = (rounded(factorisation, ranks), ranks)
    return next((one for one in candidates if factorisation.multiply_adds(one) <= allowed), None)


def _replacement(factorisation: Factorisation, ranks: Ranks) -> Replacement | None:
    layers = factorisation.build(ranks)
    if layers is None:
        return None
    return Replacement(
        factorisation.layer,
        factorisation.method,
        ranks,
        layers,
        factorisation.layer.error(layers),
        factorisation.multiply_adds(ranks),
        factorisation.parameters(ranks),
    )


def _within_budget(
    network: nn.Module,
    layers: Sequence[Layer],
    config: DecomposeConfig,
    costs: Mapping[str, LayerCost],
    study: Study,
    left: dict[str, list[str]],
) -> dict[str, Replacement]:
    """Ranks for all layers at once. What a replacement costs in quality is the layer's sensitivity x squared error."""
    assert config.target is not None
    by_work = config.target.multiply_adds is not None
    share = config.target.multiply_adds if by_work else config.target.bytes
    total = sum(cost.multiply_adds for cost in costs.values()) if by_work else parameters(network)
    full = {layer.name: layer.cost.multiply_adds if by_work else layer.weight.numel() for layer in layers}
    options: dict[str, list[Option]] = {}
    probes: dict[str, tuple[Option, nn.Sequential]] = {}
    with study.progress.stage("decompose: ranks", 2 * len(layers)) as advance:
        for layer in layers:
            options[layer.name], probe = _options(layer, config, full[layer.name], by_work)
            if probe is not None:
                probes[layer.name] = probe
            advance(1)
        weights = _sensitivities(network, probes, study, advance)
    scaled = {
        name: [Option(full[name], 0.0), *(replace(one, loss=one.loss * weights[name]) for one in found)]
        for name, found in options.items()
        if found
    }
    rest = total - sum(full[name] for name in scaled)
    assert share is not None
    chosen = allocate(scaled, int(share * total) - rest)
    if chosen is None:
        least = rest + sum(min(one.cost for one in found) for found in scaled.values())
        raise RecipeError(
            f"decompose: target {'multiply_adds' if by_work else 'bytes'} {share} cannot be reached: factors bring the "
            f"network to {least / total:.2f} at least; raise the target, or prune as well"
        )
    replacements: dict[str, Replacement] = {}
    for layer in layers:
        option = chosen.get(layer.name)
        if option is None or option.method is None:
            left.setdefault("the budget is better spent elsewhere" if option else NO_SAVING, []).append(layer.name)
            continue
        replacement = _replacement(METHODS[option.method][layer.kind](layer), option.ranks)
        assert replacement is not None  # it was built before
        replacements[layer.name] = replacement
    return replacements


def _options(
    layer: Layer, config: DecomposeConfig, full: int, by_work: bool
) -> tuple[list[Option], tuple[Option, nn.Sequential] | None]:
    """What the layer can be replaced by, with squared relative errors as losses; the one nearest to half its cost."""
    found: list[Option] = []
    probe: tuple[Option, nn.Sequential] | None = None
    for method in AUTO_OF_BUDGET[layer.kind] if config.method == "auto" else (config.method,):
        factorisation = METHODS[method][layer.kind](layer)
        for ranks in levels(factorisation):
            cost = factorisation.multiply_adds(ranks) if by_work else factorisation.parameters(ranks)
            if cost > (1 - config.least_saving) * full or (chain := factorisation.build(ranks)) is None:
                continue
            option = Option(cost, layer.error(chain) ** 2, method, ranks)
            found.append(option)
            if probe is None or abs(cost - full / 2) < abs(probe[0].cost - full / 2):
                probe = option, chain
    return found, probe


def _sensitivities(
    network: nn.Module, probes: Mapping[str, tuple[Option, nn.Sequential]], study: Study, advance: Advance
) -> dict[str, float]:
    """Of each layer, by its probe."""
    weights: dict[str, float] = {}
    pictures = study.pictures[:PICTURES]
    with torch.no_grad():
        whole = network.eval()(pictures)
    for name, (option, chain) in probes.items():
        weights[name] = sensitivity(network, name, chain, option.loss, pictures, whole, study.task)
        advance(1)
    return weights
