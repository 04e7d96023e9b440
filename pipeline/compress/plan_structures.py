"""What a plan may do to a network before it is quantised, as ordinary compression steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from phonefit.models.artifact import Runtime
from phonefit.models.quantisation import PRECISIONS, Quantisation
from phonefit.pipeline.compress.plan import MIXED, Candidate
from phonefit.pipeline.recipe_auto import AutoConfig
from phonefit.pipeline.recipe_check import common_granularity
from phonefit.pipeline.recipe_steps import (
    DecomposeConfig,
    DecomposeTarget,
    DistilConfig,
    MixedConfig,
    PruneConfig,
    QatConfig,
    QuantiseConfig,
    RecoverConfig,
    StepConfig,
)

KEPT_BY_PRUNING = (0.85, 0.7, 0.5, 0.35, 0.2, 0.1, 0.06)
KEPT_BY_DECOMPOSING = (0.85, 0.7, 0.5)
KEPT_BY_BOTH = ((0.7, 0.8), (0.4, 0.8))
LAYER_LIMITS = (0.7, 0.95)  # of pruning: usual, and where little is kept
LITTLE = 0.5
FLOAT = "float"
LEAST_LOSS = 1e-6
ROUNDINGS = 8.0  # a changed structure is not expected to lose less than this many times what rounding loses
MIXED_DROP = 0.005  # of the quality, where the budget says nothing


@dataclass(frozen=True)
class Structure:
    """Shares that pruning and decomposing keep; None: not done."""

    prune: float | None = None
    decompose: float | None = None

    @property
    def name(self) -> str:
        """For tables."""
        done = [(technique, getattr(self, technique)) for technique in ("prune", "decompose")]
        return " + ".join(f"{technique} {share:.3g}" for technique, share in done if share is not None) or "as it is"

    @property
    def kept(self) -> float:
        """Share of the whole that is kept."""
        return (self.prune or 1.0) * (self.decompose or 1.0)


def structures(config: AutoConfig) -> list[Structure]:
    """The grid: nothing, each technique alone, both."""
    pruned = [Structure(prune=share) for share in KEPT_BY_PRUNING if "prune" in config.techniques]
    decomposed = [Structure(decompose=share) for share in KEPT_BY_DECOMPOSING if "decompose" in config.techniques]
    both = [Structure(*shares) for shares in KEPT_BY_BOTH] if pruned and decomposed else []
    return [Structure(), *pruned, *decomposed, *both]


def is_milder(one: Structure, other: Structure) -> bool:
    """Whether `one` keeps at least as much as `other` in every respect."""
    return (one.prune or 1.0) >= (other.prune or 1.0) and (one.decompose or 1.0) >= (other.decompose or 1.0)


def hope(
    structure: Structure, scored: Mapping[Structure, Candidate], parent: Candidate, least: float = LEAST_LOSS
) -> Candidate:
    """What a structure that is not scored may be at best: costs by its share, and losses that grow evenly from those of
    the nearest milder structure that is scored.

    Args:
        scored: structures, with the parent's precision.
        parent: the network as it is, with this precision.
        least: loss of a network without anything, where no milder structure is scored.
    """
    milder = {one: found for one, found in scored.items() if is_milder(one, structure) and one != Structure()}
    loss, share = least * (1 - structure.kept), LEAST_LOSS * (1 - structure.kept)
    if milder:
        nearest = min(milder, key=lambda one: one.kept)
        growth = (1 - structure.kept) / max(1e-9, 1 - nearest.kept)
        loss, share = milder[nearest].changed_loss * growth, milder[nearest].changed_share * growth
    return replace(
        parent,
        structure=structure.name,
        changed_loss=loss,
        changed_share=min(1.0, share),
        multiply_adds=int(parent.multiply_adds * structure.kept),
        bytes=int(parent.bytes * structure.kept),
    )


def family(structure: Structure) -> str:
    """Structures of one family differ by how much is pruned, or decomposed where nothing is pruned."""
    return "decompose" if structure.prune is None else f"prune, decompose {structure.decompose}"


def halfway(milder: Structure, stronger: Structure) -> Structure:
    """The structure between two of a family."""
    if milder.prune is not None and stronger.prune is not None:
        return Structure(round((milder.prune + stronger.prune) / 2, 3), stronger.decompose)
    if milder.prune is None and milder.decompose is None:  # nothing at all is the mildest of every family
        if stronger.prune is not None:
            return Structure(round((1 + stronger.prune) / 2, 3), stronger.decompose)
        return Structure(None, round((1 + (stronger.decompose or 1)) / 2, 3))
    return Structure(None, round(((milder.decompose or 1) + (stronger.decompose or 1)) / 2, 3))


def structural_steps(
    structure: Structure, parameter_bytes: int, by_bytes: bool, recover: RecoverConfig
) -> tuple[StepConfig, ...]:
    """Steps that prune and decompose.

    Args:
        parameter_bytes: of the parent, in float32.
        by_bytes: whether the shares are of the bytes; else they are of the multiply-adds.
    """
    steps: list[StepConfig] = []
    if structure.prune is not None:
        limit = LAYER_LIMITS[structure.prune < LITTLE]
        goal = {"bytes": int(structure.prune * parameter_bytes)} if by_bytes else {"multiply_adds": structure.prune}
        steps.append(PruneConfig.model_validate({**goal, "layer_limit": limit, "recover": recover}))
    if structure.decompose is not None:
        target = DecomposeTarget.model_validate({"bytes" if by_bytes else "multiply_adds": structure.decompose})
        steps.append(DecomposeConfig(ranks="budget", target=target, recover=recover))
    return tuple(steps)


def quantisations(config: AutoConfig, runtimes: Sequence[Runtime]) -> dict[str, Quantisation]:
    """Scheme -> the quantisation to try: of those asked for, or of all, the ones that every runtime runs."""
    found: dict[str, Quantisation] = {}
    if "quantise" in config.techniques:
        for scheme in config.schemes or PRECISIONS:
            granularity = common_granularity(scheme, runtimes)
            if granularity is not None:
                found[scheme] = Quantisation(scheme=scheme, granularity=granularity, calibration=config.calibration)
    return found


def quantise_step(asked: Quantisation, quality_drop: float | None = None, qat: QatConfig | None = None) -> StepConfig:
    """The step that asks for a quantisation; with `quality_drop`, layers stay in float until no more is lost."""
    mixed = None if quality_drop is None else MixedConfig(quality_drop=quality_drop)
    return QuantiseConfig(
        scheme=asked.scheme, granularity=asked.granularity, calibration=asked.calibration, mixed=mixed, qat=qat
    )


def mixed_drop(limit: float | None) -> float:
    """What mixed precision may lose of the quality: half of what the budget allows."""
    return MIXED_DROP if limit is None else limit / 2


def built_steps(
    structure: Structure,
    precision: str,
    config: AutoConfig,
    schemes: Mapping[str, Quantisation],
    parameter_bytes: int,
    by_bytes: bool,
    drop_limit: float | None,
    effort: int = 0,
) -> tuple[StepConfig, ...]:
    """The steps that a recipe would list for a candidate, with its recovery.

    Args:
        effort: how often recovery was found to be too little: each doubles its epochs, and from 1 on int8 is trained.
    """
    recover = config.recover.model_copy(update={"epochs": config.recover.epochs * 2**effort})
    changed = structure != Structure()
    distilled = changed and "distil" in config.techniques and recover.epochs > 0
    after_each = RecoverConfig(epochs=0) if distilled else recover
    steps = list(structural_steps(structure, parameter_bytes, by_bytes, after_each))
    if distilled:
        steps.append(DistilConfig.model_validate(recover.model_dump()))
    if precision == MIXED:
        steps.append(quantise_step(schemes["int8_static"], mixed_drop(drop_limit)))
    elif precision != FLOAT:
        trained = effort > 0 and precision == "int8_static"
        settings = recover.model_dump(exclude={"features", "epochs", "learning_rate"})
        qat = QatConfig.model_validate({**settings, "epochs": max(1, recover.epochs)}) if trained else None
        steps.append(quantise_step(schemes[precision], qat=qat))
    return tuple(steps)
