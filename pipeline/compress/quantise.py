"""Quantisation, as far as a checkpoint goes: what is asked for, and weights that survive it. Converters realise it."""

from pathlib import Path

from torch import nn

from phonefit.models.artifact import Lineage
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.compress.bias_correction import correct_biases
from phonefit.pipeline.compress.cost import check_layers
from phonefit.pipeline.compress.equalise import equalise_for
from phonefit.pipeline.compress.mixed_precision import choose_float_layers
from phonefit.pipeline.compress.quantisation_aware import train_quantised
from phonefit.pipeline.context import Context
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import QuantiseConfig
from phonefit.pipeline.train import judged


def quantise(
    checkpoint: Checkpoint,
    config: QuantiseConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    resume: Path | None = None,
) -> Checkpoint:
    """Attach the quantisation to the checkpoint, after what prepares the network for it, in this order: equalisation,
    quantisation-aware training, bias correction, the choice of layers that stay in float. By default nothing does, and
    the weights stay as they are. The result is a float network of the same module table, but that a layer without any
    bias may get one.

    Raises:
        RecipeError: the checkpoint asks for a quantisation already, a float layer does not exist, or the bytes that
            `mixed` allows are too few.
        ModelError: the network cannot be exported.
        TrainingError: the training diverges.
    """
    if checkpoint.info.quantisation is not None:
        raise RecipeError(
            f"quantise: the checkpoint asks for {checkpoint.info.quantisation.scheme} already; "
            "a checkpoint carries one quantisation, remove one of the steps"
        )
    network = checkpoint.load()
    check_layers(network, config.float_layers, "quantise: float_layers")
    asked = Quantisation(
        scheme=config.scheme,
        granularity=config.granularity,
        float_layers=config.float_layers,
        calibration=config.calibration,
    )
    metrics, decoding, details = checkpoint.info.metrics, checkpoint.info.decoding, config.as_json()
    if config.reads_pictures:
        asked, notes = _prepared(network, checkpoint, config, asked, context, parent, resume)
        metrics, decoding = judged(network.to(context.torch()), context)
        details = {**details, "notes": [*notes]}
    lineage = Lineage(parent=checkpoint.digest, stage=config.technique, config=details)
    update = {
        "quantisation": asked,
        "metrics": metrics,
        "decoding": decoding,
        "lineage": (*checkpoint.info.lineage, lineage),
    }
    return Checkpoint.save(destination, network, checkpoint.info.model_copy(update=update))


def _prepared(
    network: nn.Module,
    checkpoint: Checkpoint,
    config: QuantiseConfig,
    asked: Quantisation,
    context: Context,
    parent: Checkpoint,
    resume: Path | None,
) -> tuple[Quantisation, list[str]]:
    """Prepare `network` in place; returns the quantisation with its float layers, and notes on what was done."""
    architecture = checkpoint.info.architecture
    samples = context.data.calibration(asked.calibration)
    notes: list[str] = []
    with deterministic(context, "quantise"):
        if config.equalise:
            notes += equalise_for(network, architecture, samples, asked)
        if config.qat is not None:
            notes += train_quantised(network, checkpoint, config.qat, asked, context, parent, resume)
        if config.bias_correction:
            notes += correct_biases(network, architecture, samples, asked)
        if config.mixed is not None:
            chosen, more = choose_float_layers(network, checkpoint, context, asked, config.mixed)
            notes += more
            asked = asked.model_copy(update={"float_layers": (*asked.float_layers, *chosen)})
    return asked, notes
