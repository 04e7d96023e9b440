"""Learning from a teacher's inner activations, besides its outputs.

FitNets: Romero et al. 2015, arXiv 1412.6550. Attention transfer: Zagoruyko and Komodakis 2017, arXiv 1612.03928.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from phonefit.models.layers import unknown_layers
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import FeatureConfig

SMALLEST = 1e-8
FEATURE_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda student, teacher: normalised_distance(student, teacher),
    "attention": lambda student, teacher: attention_distance(student, teacher),
}
"""What `FeatureConfig.loss` names: both activations float32 [N, C, H, W]; only attention takes unlike C."""


@dataclass(frozen=True)
class Pair:
    """A layer of the student and the layer of the teacher that it learns from; the spatial sizes are equal."""

    student: str
    teacher: str
    student_channels: int
    teacher_channels: int


class FeatureMatching(nn.Module):
    """The loss between paired activations. Its 1x1 convolutions learn along and are not part of the student."""

    def __init__(self, pairs: Iterable[Pair], config: FeatureConfig) -> None:
        super().__init__()
        self.pairs, self.config = tuple(pairs), config
        self.projections = nn.ModuleList(
            nn.Conv2d(pair.student_channels, pair.teacher_channels, 1)
            if config.loss == "mse" and pair.student_channels != pair.teacher_channels
            else nn.Identity()
            for pair in self.pairs
        )

    def forward(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
        """Mean loss of the pairs from activations by layer, float32 [N, C, H, W]."""
        loss = FEATURE_LOSSES[self.config.loss]
        found = [
            loss(projection(student[pair.student]), teacher[pair.teacher])
            for pair, projection in zip(self.pairs, self.projections, strict=True)
        ]
        return torch.stack(found).mean()


def match_features(student: nn.Module, teacher: nn.Module, config: FeatureConfig, picture: Tensor) -> FeatureMatching:
    """Pair the layers of two networks, which are run once on `picture`, float32 [1, 3, height, width].

    Raises:
        RecipeError: a named layer does not exist or its activation does not fit the other's, or nothing can be paired.
    """
    ours, theirs = (_maps(network, picture) for network in (student, teacher))
    if config.layers == "auto":
        pairs = [
            Pair(last[0], known[size][0], last[1], known[size][1])
            for known in (_last_of_each_size(theirs),)
            for size, last in _last_of_each_size(ours).items()
            if size in known
        ]
        if not pairs:
            raise RecipeError(
                "features: student and teacher have no activations of the same height and width; leave features out"
            )
        return FeatureMatching(pairs, config)
    for network, names, whose in ((student, config.layers, "student"), (teacher, config.layers.values(), "teacher")):
        if problem := unknown_layers(network, names):
            raise RecipeError(f"features: layers of the {whose}: {problem}")
    return FeatureMatching([_named_pair(ours, theirs, *names) for names in config.layers.items()], config)


@contextmanager
def recorded(network: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """While it lasts, a forward pass of `network` puts the outputs of the named layers into what this yields."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        seen[name] = output

    handles = [
        network.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name in names
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def normalised_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference over the teacher's variance: the same for activations of any scale."""
    return functional.mse_loss(student, teacher) / teacher.var().clamp(min=SMALLEST)


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the maps of squared activations, each of norm 1 (equation 2 of the paper, p = 2)."""

    def attention(activation: Tensor) -> Tensor:
        return functional.normalize(activation.square().mean(dim=1).flatten(1), dim=1)

    return (attention(student) - attention(teacher)).square().sum(dim=1).mean()


def _maps(network: nn.Module, picture: Tensor) -> dict[str, torch.Size]:
    """Shapes of the outputs with a height and a width, by layer, in the order in which the layers end."""
    was_training = network.training
    with torch.no_grad(), recorded(network, [name for name, _ in network.named_modules() if name]) as seen:
        network.eval()(picture)
    network.train(was_training)
    return {name: output.shape for name, output in seen.items() if isinstance(output, Tensor) and output.ndim == 4}


def _last_of_each_size(maps: Mapping[str, torch.Size]) -> dict[tuple[int, int], tuple[str, int]]:
    """Height and width -> layer and its channels; single places are left out, the outputs say as much."""
    return {(shape[2], shape[3]): (name, shape[1]) for name, shape in maps.items() if shape[2] * shape[3] > 1}


def _named_pair(ours: Mapping[str, torch.Size], theirs: Mapping[str, torch.Size], student: str, teacher: str) -> Pair:
    for maps, name, whose in ((ours, student, "student"), (theirs, teacher, "teacher")):
        if name not in maps:
            raise RecipeError(f"features: layer {name} of the {whose} gives no activation with a height and a width")
    first, second = ours[student], theirs[teacher]
    if first[2:] != second[2:]:
        raise RecipeError(
            f"features: {student} of the student gives {first[2]}x{first[3]}, {teacher} of the teacher "
            f"{second[2]}x{second[3]}; pair layers of the same height and width"
        )
    return Pair(student, teacher, first[1], second[1])
