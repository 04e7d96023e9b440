"""Times of single layers by counts: the same on every run, and together about what the whole network takes.

Needs `make emulator`.
"""

import pytest

from phonefit.device_bench.devices import open_device
from phonefit.pipeline.ask import ask_run_device
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.explain.gather import explain
from phonefit.pipeline.finetune import finetune
from phonefit.pipeline.recipe_file import load_recipe
from phonefit.pipeline.run import open_context
from tests.integration.test_main_path import write_recipe

pytestmark = pytest.mark.emulator


def test_counted_layers_are_the_same_twice_and_sum_to_about_the_network(tmp_path):
    changes = {"convert": {"runtimes": ["tflite"]}, "bench": {"device": "emulator:counts", "attempts": 1}}
    recipe = load_recipe(write_recipe(tmp_path, **changes))
    first, second = (explain(recipe, runs=tmp_path / name) for name in ("first", "second"))
    assert first == second
    assert first.timing is not None
    assert (first.timing.source, first.timing.asked, first.timing.doubtful) == ("modelled", 8, 0)
    times = {layer.name: layer.nanoseconds for layer in first.layers}
    assert all(time is not None and time > 0 for time in times.values())
    context = open_context(recipe, tmp_path / "first", SilentProgress())
    ask = ask_run_device(recipe, open_device("emulator:counts"), context)
    whole = 1e6 * ask(finetune(recipe, context)[1]).median_milliseconds()
    assert 0.6 * whole < sum(times.values()) < 1.1 * whole
