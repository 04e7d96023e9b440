"""A head adapted to a few pictures beside scikit-learn's linear probe on the same features; see docs/own-task.md.

    pip install scikit-learn
    python benchmarks/few_shot.py [--first 0] [--seeds 5] [--shots 8] [--random] [--runs .cache/benchmarks/few_shot]

For each seed the sides are split anew; accuracy on the validation side. The recipe takes the first pictures of the
training side by their content, so that draws of two seeds share 10 of 16 pictures; with `--random` each seed draws its
own from the training side of seed 0. The seconds are those of the adaptation with its features, training and judging,
of pictures that are decoded already.
"""

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from phonefit.models.record import digest_of
from phonefit.models.targets import rows_by_class
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.finetune import finetune
from phonefit.pipeline.prepare import PreparedPictures
from phonefit.pipeline.recipe_file import load_recipe
from phonefit.pipeline.run import open_context

COLUMNS = (
    "seed",
    "without looking",
    "phonefit",
    "scikit-learn",
    "C by cross-validation",
    "the same, tol=1e-8",
    "seconds of phonefit",
)


@dataclass
class Drawn(PreparedPictures):
    """Prepared pictures of whose training side only `rows` are left."""

    rows: np.ndarray = field(kw_only=True)

    def pixels(self, side):
        """RGB uint8 [N, height, width, 3]."""
        return super().pixels(side)[self.rows] if side == "train" else super().pixels(side)

    def targets(self, side):
        """int64 [N]."""
        return super().targets(side)[self.rows] if side == "train" else super().targets(side)


def drawn(pictures, seed, shots):
    """So many random pictures of each class."""
    random = np.random.default_rng(seed)
    classes = rows_by_class(pictures.targets("train"), len(pictures.labels))
    rows = np.sort(np.concatenate([random.permutation(own)[:shots] for own in classes]))
    names = {**pictures.names, "train": tuple(pictures.names["train"][row] for row in rows)}
    digest = digest_of([pictures.digest, rows.tolist()])
    return Drawn(**{**vars(pictures), "names": names, "digest": digest, "rows": rows})


def features_of(network, context, side):
    """What the head reads of each picture of a side: float32 [N, features]."""
    seen = []
    hook = network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for start in range(0, len(context.data.targets(side)), 64):
            stop = min(start + 64, len(context.data.targets(side)))
            network(torch.from_numpy(context.data.inputs(side, start, stop)))
    hook.remove()
    return torch.cat(seen).numpy()


def row_of(seed, shots, random, runs):
    """Accuracies of one seed, and the seconds of the adaptation."""
    data = ["data.shots=null"] if random else [f"data.split.seed={seed}", f"data.shots={shots}"]
    recipe = load_recipe("few-shot", [f"seed={seed}", *data])
    context = open_context(recipe, runs, SilentProgress())
    if random:
        context = replace(context, data=drawn(context.data, seed, shots))
    torch.set_num_threads(recipe.threads)
    stage, checkpoint = finetune(recipe, context)
    network = checkpoint.load().eval()
    train, validation = (features_of(network, context, side) for side in ("train", "validation"))
    targets, judged = context.data.targets("train"), context.data.targets("validation")
    probes = [LogisticRegression(max_iter=5000)]
    # scikit-learn's own, with which it stops before the optimum; and one that reaches it
    for tolerance in (1e-4, 1e-8):
        probe = LogisticRegression(max_iter=5000, tol=tolerance)
        probes.append(GridSearchCV(probe, {"C": np.logspace(-4, 4, 9)}, cv=min(4, shots), scoring="neg_log_loss"))
    _, without = context.task.baseline(targets, judged)
    scores = [(probe.fit(train, targets).predict(validation) == judged).mean() for probe in probes]
    return without["accuracy"], checkpoint.info.metrics["accuracy"], *scores, stage.seconds


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path(".cache/benchmarks/few_shot"))
    arguments = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    rows = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        rows.append(row_of(seed, arguments.shots, arguments.random, arguments.runs))
        show(seed, rows[-1])
    show("mean", np.mean(rows, axis=0))


def show(name, row):
    """Print one line."""
    *accuracies, seconds = row
    print(f"| {name} | {' | '.join(f'{100 * one:.1f}' for one in accuracies)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
