"""Quantisation, as far as a checkpoint goes: what is asked for. The converters realise it."""

from pathlib import Path

from phonefit.models.artifact import Lineage
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.compress.cost import check_layers
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import QuantiseConfig


def quantise(
    checkpoint: Checkpoint,
    config: QuantiseConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    resume: Path | None = None,
) -> Checkpoint:
    """Attach the quantisation to the checkpoint; its weights stay as they are.

    Raises:
        RecipeError: the checkpoint asks for a quantisation already, or a float layer does not exist.
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
    lineage = Lineage(parent=checkpoint.digest, stage=config.technique, config=config.as_json())
    info = checkpoint.info.model_copy(update={"quantisation": asked, "lineage": (*checkpoint.info.lineage, lineage)})
    return Checkpoint.save(destination, network, info)
