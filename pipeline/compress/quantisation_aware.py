"""Quantisation-aware training: the network learns to compute with rounded weights and activations.

Jacob et al. 2018, arXiv 1712.05877; with the statistics of BatchNorm frozen and folded into the weights from the start,
which Krishnamoorthi 2018, arXiv 1806.08342, section 3.2, recommends for the end of such a training.
"""

from pathlib import Path

from torch import nn

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.compress.fake_quantise import fake_quantised
from phonefit.pipeline.compress.layer_graph import trace
from phonefit.pipeline.context import Context
from phonefit.pipeline.recipe_steps import QatConfig
from phonefit.pipeline.train import train

TITLE = "quantisation-aware training"


def train_quantised(
    network: nn.Module,
    checkpoint: Checkpoint,
    config: QatConfig,
    quantisation: Quantisation,
    context: Context,
    parent: Checkpoint,
    resume: Path | None,
) -> list[str]:
    """Train `network`, the network of `checkpoint`, in place, as int8 will compute it; returns a note.

    The parameters stay those of the float network: the weights, and weight and bias of each BatchNorm. The teacher is
    the float `parent`. The kept epoch is that of the highest quality with rounding, and the network before training is
    a candidate. Dropout is off.

    Raises:
        ModelError: the network cannot be exported.
        TrainingError: the training diverges.
    """
    samples = context.data.calibration(quantisation.calibration)
    simulated = fake_quantised(trace(network, checkpoint.info.architecture), quantisation, samples)
    outcome = train(
        simulated.module,
        context,
        config.settings(),
        title=TITLE,
        teacher=parent.load() if config.epochs > 0 and config.teacher_weight > 0 else None,
        temperature=config.temperature,
        teacher_weight=config.teacher_weight,
        resume=resume,
    )
    network.eval()
    return [f"with int8 as simulated, {outcome.summary(context.task.quality)}"]
