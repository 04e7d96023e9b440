"""The search space as data, and its translation for Optuna."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_search import Range
from phonefit.pipeline.search.space import (
    Conditional,
    decode,
    distributions,
    encode,
    is_whole,
    point_key,
    points,
    size,
    suggest,
)

STEPS = ([], [{"technique": "prune", "ratio": 0.3}, {"technique": "quantise"}], [{"technique": "quantise"}])
SPACE = {
    "compress": STEPS,
    "finetune.flip": ("none", "both"),
    "finetune.epochs": Range(low=2, high=8, step=3, integer=True),
    "finetune.weight_decay": Range(low=0.0, high=0.3, step=0.1),
    "finetune.learning_rate": Range(low=1e-4, high=1e-1, log=True),
    "data.limit": (None, 500),
}


def test_each_kind_of_axis_becomes_its_distribution():
    found = distributions(SPACE)
    assert found["finetune.flip"] == CategoricalDistribution(("none", "both"))
    assert found["data.limit"] == CategoricalDistribution((None, 500))
    assert found["finetune.epochs"] == IntDistribution(2, 8, step=3)
    assert found["finetune.weight_decay"] == FloatDistribution(0.0, 0.3, step=0.1)
    assert found["finetune.learning_rate"] == FloatDistribution(1e-4, 1e-1, log=True)
    assert all(isinstance(choice, str) for choice in found["compress"].choices)


def test_lists_and_mappings_come_back_as_they_were():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = [suggest(study.ask(), SPACE)["compress"] for _ in range(20)]
    assert all(any(steps == choice for choice in STEPS) for steps in seen)
    assert [] in seen
    assert list(STEPS[1]) in seen


def test_text_that_looks_like_a_list_is_not_taken_for_one():
    space = {"x": ("[1]", [1])}
    values = [decode(encode({"x": choice}, space), space)["x"] for choice in space["x"]]
    assert values == ["[1]", [1]]
    assert len(set(distributions(space)["x"].choices)) == 2


def test_suggest_asks_within_what_distributions_says():
    trial = optuna.create_study().ask(distributions(SPACE))
    assert suggest(trial, SPACE) == decode(trial.params, SPACE)


def test_every_point_of_a_finite_space_is_listed_once_and_encodes_back():
    space = {path: axis for path, axis in SPACE.items() if path != "finetune.learning_rate"}
    listed = list(points(space))
    assert size(space) == 3 * 2 * 3 * 4 * 2 == len(listed)
    assert len({point_key(point) for point in listed}) == len(listed)
    assert [decode(encode(point, space), space) for point in listed] == listed


def test_a_continuous_range_has_no_size_unless_it_is_one_value():
    assert size(SPACE) is None
    assert size({"x": Range(low=0.5, high=0.5)}) == 1


PRUNE = [{"technique": "prune", "ratio": 0.3}]
TREE = {
    "compress": ([], PRUNE, [{"technique": "quantise"}]),
    "bench.threads": (1, 2),
    "compress.0.ratio": Conditional((0.1, 0.2, 0.3), "compress", (PRUNE,)),
    "compress.0.qat": Conditional((None, {"epochs": 1}), "compress", ([{"technique": "quantise"}],)),
    "compress.0.qat.shift": Conditional((0.0, 0.1), "compress.0.qat", ({"epochs": 1},)),
}


def test_conditional_axes_are_counted_and_listed_where_they_exist():
    listed = list(points(TREE))
    assert size(TREE) == 2 * (1 + 3 + (1 + 2)) == len(listed) == len({point_key(point) for point in listed})
    assert all(is_whole(point, TREE) for point in listed)
    assert not is_whole({"compress": PRUNE, "bench.threads": 1}, TREE)
    assert is_whole({"compress": [], "bench.threads": 1}, TREE)
    assert [decode(encode(point, TREE), TREE) for point in listed] == listed
    assert set(distributions(TREE)) == {"compress", "bench.threads"}
    continuous = {**TREE, "compress.0.ratio": Conditional(Range(low=0.1, high=0.2), "compress", (PRUNE,))}
    assert size(continuous) is None


def test_points_that_differ_in_the_last_digits_only_are_the_same():
    assert point_key({"a": 0.1 + 0.2, "b": 1}) == point_key({"b": 1, "a": 0.3})
    assert point_key({"a": 0.3}) != point_key({"a": 0.3001})


@pytest.mark.parametrize(("space", "message"), [({}, "nothing to search"), ({"bench.threads": ()}, "no choices")])
def test_nothing_to_choose_from_is_refused_before_the_study_starts(space, message):
    with pytest.raises(RecipeError, match=message):
        distributions(space)
