"""The points of benchmarks/compression.py: recipes on the demo's photographs, by network and name."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from phonefit.models.artifact import Runtime
from phonefit.pipeline.recipe import Recipe

Steps = list[dict[str, JsonValue]]
INT8: dict[str, JsonValue] = {"technique": "quantise", "calibration": {"samples": 256}}
QAT: dict[str, JsonValue] = {**INT8, "qat": {"epochs": 3}}
BOTH: tuple[Runtime, ...] = ("tflite", "executorch")
# .pte and .tflite of strongly compressed networks differ more from PyTorch than the demo's: quality is judged instead
PARITY: dict[str, JsonValue] = {"cosine": 0.9, "snr_db": 6, "agreement": 0.85}


@dataclass(frozen=True)
class Point:
    """One line of the table.

    Attributes:
        kind: original, single (one technique) or combination.
        chosen: also measured for .pte and with further seeds.
    """

    kind: str
    steps: Steps
    chosen: bool = False


def prune(share: float, epochs: int, **more: JsonValue) -> dict[str, JsonValue]:
    """Remove channels until `share` of the multiply-adds is left."""
    recover: JsonValue = {"epochs": epochs, "learning_rate": 1e-3}
    return {"technique": "prune", "multiply_adds": share, "recover": recover, **more}


def decompose(aim: str, share: float, epochs: int) -> dict[str, JsonValue]:
    """Factors until `share` of `aim` (multiply_adds or bytes) is left."""
    recover: JsonValue = {"epochs": epochs, "learning_rate": 1e-3}
    return {"technique": "decompose", "ranks": "budget", "target": {aim: share}, "recover": recover}


def distil(epochs: int, rate: float = 5e-4, **more: JsonValue) -> dict[str, JsonValue]:
    """Learn from the fine-tuned parent."""
    return {"technique": "distil", "epochs": epochs, "learning_rate": rate, **more}


LITE0: dict[str, Point] = {
    "float": Point("original", [], True),
    "int8": Point("single", [INT8], True),
    "int8, qat": Point("single", [QAT], True),
    "prune, decompose, distil, int8": Point(
        "combination", [prune(0.5, 3), decompose("bytes", 0.7, 1), distil(2), INT8], True
    ),
    "prune, decompose, qat": Point("combination", [prune(0.5, 3), decompose("bytes", 0.7, 1), QAT], True),
    "prune, decompose, distil 6, int8": Point(
        "combination", [prune(0.6, 3), decompose("bytes", 0.55, 1), distil(6, 1e-3), INT8], True
    ),
    "prune to 0.75, distil, int8": Point("combination", [prune(0.75, 3), distil(4), INT8]),
    "prune, int8": Point("combination", [prune(0.42, 4), INT8]),
    "prune to 0.42": Point("single", [prune(0.42, 4)]),
    "decompose to 0.5": Point("single", [decompose("multiply_adds", 0.5, 3)]),
    "distil to MobileNetV2 x 0.5": Point(
        "single", [distil(8, 1e-3, student={"family": "mobilenet_v2", "width": 0.5, "weights": "random"})]
    ),
    "prune to 0.3, decompose, distil, int8": Point(
        "combination", [prune(0.3, 3), decompose("bytes", 0.7, 1), distil(4), INT8]
    ),
}

RESNET18: dict[str, Point] = {
    "float": Point("original", [], True),
    "int8": Point("single", [INT8], True),
    "prune, decompose, distil, int8": Point(
        "combination",
        [prune(0.2, 3, layer_limit=0.85), decompose("multiply_adds", 0.6, 1), distil(2), INT8],
        True,
    ),
    "prune, decompose, qat": Point(
        "combination", [prune(0.2, 3, layer_limit=0.85), decompose("multiply_adds", 0.6, 1), QAT], True
    ),
    "prune to 0.3, distil, int8": Point("combination", [prune(0.3, 4, layer_limit=0.85), distil(3), INT8], True),
    "prune to 0.5, qat": Point("combination", [prune(0.5, 4, layer_limit=0.85), QAT], True),
    "prune, int8": Point("combination", [prune(0.12, 4, layer_limit=0.85), INT8], True),
    "prune to 0.12": Point("single", [prune(0.12, 4, layer_limit=0.85)]),
}

POINTS: Mapping[str, Mapping[str, Point]] = {"lite0": LITE0, "resnet18": RESNET18}
BASES: Mapping[str, Mapping[str, JsonValue]] = {
    "lite0": {  # as the recipe demo has it
        "threads": 1,
        "model": {"family": "efficientnet_lite0", "weights": "pretrained"},
        "data": {"source": "demo", "input": {"height": 96, "width": 96, "resize": "stretch"}},
        "finetune": {"epochs": 6, "freeze_epochs": 1, "learning_rate": 1e-3, "batch_size": 32, "flip": "both"},
    },
    "resnet18": {
        "threads": 1,
        "model": {"family": "resnet18", "weights": "random"},
        "data": {"source": "demo", "input": {"height": 64, "width": 64, "resize": "stretch"}},
        "finetune": {"epochs": 10, "freeze_epochs": 0, "learning_rate": 1e-3, "batch_size": 32, "flip": "both"},
    },
}


def recipe_of(network: str, steps: Steps, seed: int, runtimes: tuple[Runtime, ...]) -> Recipe:
    """The recipe of one point. Counts on the emulated core repeat exactly, however busy the machine is."""
    return Recipe.model_validate(
        {
            **BASES[network],
            "name": f"{network}-{seed}",
            "seed": seed,
            "compress": steps,
            "convert": {"runtimes": runtimes, "original": False, "parity": PARITY},
            "bench": {"device": "emulator:counts"},
        }
    )
