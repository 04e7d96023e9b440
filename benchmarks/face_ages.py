"""Ages that face_age says of photographs, unchanged, of faces cut out otherwise, and in int8; see docs/own-task.md.

    make faces
    python -m benchmarks.face_ages [--cuts 60] [--runtimes executorch tflite onnx] [--runs .cache/benchmarks/face_ages]

In int8 the files are calibrated on one part of 16 cuts of each face, and compared with PyTorch on another part.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models import decode
from phonefit.models.data.picture import open_picture
from phonefit.models.data.preprocess import apply, normalise
from phonefit.models.decoding import RegressionDecoding
from phonefit.models.registry import build_network, model_spec
from phonefit.models.spec import Architecture
from phonefit.models.weights import initialise
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.convert.stage import convert_stage
from phonefit.pipeline.finetune import finetune
from phonefit.pipeline.recipe import resolved_steps
from phonefit.pipeline.recipe_file import load_recipe
from phonefit.pipeline.run import open_context
from tests.face_age_case import AGES, cuts
from tests.face_photographs import FACES, FOLDER, write_photographs


def photographs(pictures, count):
    """A row for each photograph: its age, the answer, and the answers of other cuts."""
    architecture = Architecture(family="face_age", outputs=1, height=112, width_pixels=112)
    network, preprocess = build_network(architecture).eval(), model_spec("face_age").preprocess
    initialise(network, architecture, "pretrained", (), RegressionDecoding())
    print("| photograph | age | answer | of other cuts: smallest | largest | deviation | 20 % wider |")
    print("|---|---|---|---|---|---|---|")
    for name, picture in pictures.items():
        left, top, right, bottom = FACES[name]
        more = round(0.2 * (right - left))
        wide = (max(left - more, 0), max(top - more, 0), right + more, bottom + more)
        faces = [picture.crop(FACES[name]), picture.crop(wide), *cuts(picture, name, count)]
        with torch.no_grad():
            inputs = normalise(np.stack([apply(face, preprocess) for face in faces]), preprocess)
            exact, wider, *others = network(torch.from_numpy(inputs)).numpy()[:, 0]
        figures = (exact, min(others), max(others), np.std(others), wider)
        print(f"| {name} | {AGES[name]} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")


def converted(pictures, runtimes, runs):
    """A row for each runtime: the int8 file's size, and its difference from PyTorch in years."""
    lines = ["path,age"]
    for name, picture in pictures.items():
        for index, face in enumerate(cuts(picture, name, 16)):
            path = runs / f"{Path(name).stem}{index}.png"
            face.save(path)
            lines.append(f"{path.name},{AGES[name]}")
    (runs / "ages.csv").write_text("\n".join(lines) + "\n")
    size = "data.input={height: 112, width: 112}"
    asked = ["model.family=face_age", "task.loss=huber", size, "finetune.epochs=0", "data.split.validation=0.3"]
    recipe = load_recipe("ages", [*asked, f"data.path={runs / 'ages.csv'}", "convert.parity.snr_db=0"])
    context = open_context(recipe, runs, SilentProgress())
    _, original = finetune(recipe, context)
    (step,) = resolved_steps(recipe)
    _, quantised = compress_step(original, step, context, original)
    inputs = context.data.inputs("validation", 0, len(context.data.targets("validation")))
    with torch.no_grad():
        exact = _years(original.load()(torch.from_numpy(inputs)).numpy(), original)
    print(f"\n| runtime, on {len(exact)} cuts | float: largest difference | int8: mean | largest | kB |")
    print("|---|---|---|---|---|")
    for runtime in runtimes:
        wrong = []
        for checkpoint in (original, quantised):
            _, _, path, _ = convert_stage(checkpoint, runtime, context, recipe.convert)
            outputs = run_samples(runtime_module(runtime).load(path, 1), inputs)
            wrong.append(np.abs(_years(outputs, original) - exact))
        bytes_ = path.stat().st_size
        print(
            f"| {runtime} | {wrong[0].max():.3f} | {wrong[1].mean():.2f} | {wrong[1].max():.2f} | {bytes_ / 1e3:.0f} |",
            flush=True,
        )


def _years(outputs, checkpoint):
    return np.array([decode.number(row, checkpoint.info.decoding) for row in outputs])


def main():
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cuts", type=int, default=60)
    parser.add_argument("--runtimes", nargs="*", default=["executorch", "tflite", "onnx"])
    parser.add_argument("--runs", type=Path, default=Path(".cache/benchmarks/face_ages"))
    arguments = parser.parse_args()
    runs = arguments.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    os.chdir(FOLDER)  # where npm has put the weights
    pictures = {name: open_picture(path) for name, path in write_photographs(runs).items()}
    photographs(pictures, arguments.cuts)
    if arguments.runtimes:
        converted(pictures, arguments.runtimes, runs)


if __name__ == "__main__":
    main()
