"""What prepares a network for int8, up to the converted files on their runtimes."""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models.quantisation import CalibrationSet
from phonefit.pipeline.compress.fake_quantise import fake_quantised
from phonefit.pipeline.compress.layer_graph import trace
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.convert.stage import convert_stage
from phonefit.pipeline.evaluate import evaluate_file
from phonefit.pipeline.recipe import ConvertConfig, ParityConfig, Recipe, resolved_steps
from phonefit.pipeline.recipe_steps import MixedConfig, QatConfig, QuantiseConfig
from tests.quantised_case import spoilt, trained
from tests.tiny import TinyPictures, tiny_context

RUNTIMES = ("executorch", "tflite")
SET = CalibrationSet(samples=32, method="minmax")
ANY = ConvertConfig(parity=ParityConfig(cosine=-1, snr_db=-100, agreement=0))
QAT = QatConfig(epochs=4, learning_rate=3e-3, batch_size=16, flip="none", shift=0)
PLAIN = QuantiseConfig(calibration=SET)
COARSE = QuantiseConfig(calibration=SET, granularity="per_tensor")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    sound = trained(folder / "sound", tiny_context(folder))
    return {"sound": sound, "spoilt": spoilt(folder / "spoilt", sound)}


def snr(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum())


def quality(checkpoint, runtime, context):
    """Accuracy of the converted file on its runtime."""
    _, artifact, path, _ = convert_stage(checkpoint, runtime, context, ANY)
    return evaluate_file(artifact, path, "validation", context)[1]["accuracy"]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("config", [PLAIN, COARSE], ids=["per_channel", "per_tensor"])
def test_the_simulation_computes_what_the_file_computes(checkpoints, runtime, config, tmp_path):
    context = tiny_context(tmp_path)
    _, asked = compress_step(checkpoints["spoilt"], config, context, checkpoints["spoilt"])
    _, _, path, _ = convert_stage(asked, runtime, context, ANY)
    pictures = TinyPictures().inputs("validation", 0, 48)
    file = run_samples(runtime_module(runtime).load(path, 1), pictures)
    network = asked.load()
    simulated = fake_quantised(
        trace(network, asked.info.architecture), asked.info.quantisation, context.data.calibration(SET)
    ).module
    with torch.no_grad():
        exact, rounded = (model(torch.from_numpy(pictures)).numpy() for model in (network, simulated))
    assert snr(file, rounded) > snr(exact, file) + 6  # nearer to the file than the float network is
    assert snr(file, rounded) > 30


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_trained_network_survives_int8_better_than_one_that_is_only_converted(checkpoints, runtime, tmp_path):
    context, checkpoint = tiny_context(tmp_path), checkpoints["spoilt"]
    _, plain = compress_step(checkpoint, COARSE, context, checkpoint)
    _, aware = compress_step(checkpoint, COARSE.model_copy(update={"qat": QAT}), context, checkpoint)
    before, after = quality(plain, runtime, context), quality(aware, runtime, context)
    assert checkpoint.info.metrics["accuracy"] - before > 0.1  # there is something to gain
    assert after >= before + 0.1
    assert not aware.info.modules  # an ordinary float network of the same architecture
    assert "with int8 as simulated, accuracy on the validation side" in aware.info.lineage[-1].config["notes"][0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_on_a_sound_network_nothing_is_worse_than_plain_conversion(checkpoints, runtime, tmp_path):
    context, checkpoint = tiny_context(tmp_path), checkpoints["sound"]
    _, plain = compress_step(checkpoint, PLAIN, context, checkpoint)
    before = quality(plain, runtime, context)
    for changes in ({"qat": QAT}, {"equalise": True, "bias_correction": True}):
        _, prepared = compress_step(checkpoint, PLAIN.model_copy(update=changes), context, checkpoint)
        assert quality(prepared, runtime, context) >= before


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_layers_are_left_in_float_until_the_file_is_good_enough(checkpoints, runtime, tmp_path):
    context, checkpoint = tiny_context(tmp_path), checkpoints["spoilt"]
    config = COARSE.model_copy(update={"mixed": MixedConfig(quality_drop=0.05)})
    _, mixed = compress_step(checkpoint, config, context, checkpoint)
    assert mixed.info.quantisation.float_layers == ("2",)
    assert checkpoint.info.metrics["accuracy"] - quality(mixed, runtime, context) <= 0.05 + 1 / 48


class Interrupted:
    """Progress that stops the process, as it were, in the third epoch."""

    @contextmanager
    def stage(self, title, total=None):
        def advance(steps=1, note=""):
            if note.startswith("epoch 3"):
                raise KeyboardInterrupt

        yield advance


def test_an_interrupted_training_goes_on_to_the_same_checkpoint(checkpoints, tmp_path):
    checkpoint, config = checkpoints["spoilt"], COARSE.model_copy(update={"qat": QAT})
    whole, stopped = tiny_context(tmp_path / "whole"), tiny_context(tmp_path / "stopped")
    _, wanted = compress_step(checkpoint, config, whole, checkpoint)
    with pytest.raises(KeyboardInterrupt):
        compress_step(checkpoint, config, replace(stopped, progress=Interrupted()), checkpoint)
    assert len(list((tmp_path / "stopped/runs/store/resume").iterdir())) == 1
    _, resumed = compress_step(checkpoint, config, stopped, checkpoint)
    assert resumed.digest == wanted.digest
    assert not list((tmp_path / "stopped/runs/store/resume").iterdir())


FRESH = """
import sys
from pathlib import Path
import numpy as np, torch
from phonefit.models.checkpoint import Checkpoint
from tests.tiny import TinyPictures
pictures = torch.from_numpy(TinyPictures().inputs("test", 0, 8))
np.save(sys.argv[2], Checkpoint(Path(sys.argv[1])).load()(pictures).detach().numpy())
"""


def test_the_result_loads_in_a_fresh_process(checkpoints, tmp_path):
    checkpoint = checkpoints["spoilt"]
    config = COARSE.model_copy(
        update={"qat": QAT, "equalise": True, "bias_correction": True, "mixed": MixedConfig(bytes=11_000)}
    )
    _, result = compress_step(checkpoint, config, tiny_context(tmp_path), checkpoint)
    command = [sys.executable, "-c", FRESH, str(result.directory), str(tmp_path / "outputs.npy")]
    subprocess.run(command, check=True)
    with torch.no_grad():
        outputs = result.load()(torch.from_numpy(TinyPictures().inputs("test", 0, 8))).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), outputs, rtol=1e-5, atol=1e-5)
    assert len(result.info.lineage[-1].config["notes"]) == 5


def test_only_what_trains_or_calibrates_depends_on_data_seed_and_teacher(checkpoints, tmp_path):
    context, checkpoint = tiny_context(tmp_path), checkpoints["sound"]

    class Others(TinyPictures):
        digest = "tiny-pictures-2"

    others = replace(context, data=Others(), seed=1)
    for config, reused in ((PLAIN, True), (PLAIN.model_copy(update={"equalise": True}), False)):
        first, _ = compress_step(checkpoint, config, context, checkpoint)
        second, _ = compress_step(checkpoint, config, context, checkpoint)
        third, _ = compress_step(checkpoint, config, others, checkpoint)
        assert (first.reused, second.reused, third.reused) == (False, True, reused)


def test_the_training_takes_from_fine_tuning_what_is_not_given():
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "model": {"family": "resnet18"},
            "data": {"source": "demo"},
            "finetune": {"flip": "both", "batch_size": 8, "learning_rate": 0.5},
            "compress": [{"technique": "quantise", "qat": {"shift": 0.2}}],
        }
    )
    (step,) = resolved_steps(recipe)
    assert (step.qat.flip, step.qat.batch_size, step.qat.shift, step.qat.learning_rate) == ("both", 8, 0.2, 1e-4)
