"""The energy that is modelled from counts, and what it is called."""

import pytest

from phonefit.device_bench.emulator.latency_model import TERMS
from phonefit.device_bench.energy import EnergyUnavailableError, figure
from phonefit.device_bench.energy_costs import EnergyCosts, energy_costs, modelled_energy

COUNTS = dict.fromkeys(TERMS, (1000000.0, 3000000.0))


def test_everything_that_is_counted_has_a_cost_with_a_source():
    costs = energy_costs()
    assert set(costs.picojoules) == set(TERMS) == set(costs.sources)
    assert all("Horowitz" in text or "Jouppi" in text or "instruction" in text or "assumption" in text
               for text in costs.sources.values())  # fmt: skip


def test_a_modelled_energy_is_the_sum_of_its_costs_and_says_what_it_is():
    costs = EnergyCosts(
        origin="a table", picojoules={"l3_misses": 10.0, "integer_instructions": 2.0},
        sources={"l3_misses": "a", "integer_instructions": "b"},
    )  # fmt: skip
    counts = {"l3_misses": (100.0,), "integer_instructions": (1e6, 3e6), "read_bytes": (5.0,)}
    estimate = modelled_energy(counts, costs)
    assert estimate.microjoules == pytest.approx((1000 + 4e6) / 1e6) and estimate.uncertainty_microjoules is None
    shown = figure(estimate)
    assert (shown.source, shown.method, shown.uncertainty) == ("modelled", "modelled", None)
    assert "modelled" in shown.note and "DRAM only" in shown.note


def test_a_cache_miss_costs_more_the_farther_it_goes():
    costs = energy_costs().picojoules
    assert costs["l1_misses"] < costs["l2_misses"] < costs["l3_misses"]


def test_without_all_its_counts_there_is_no_model():
    with pytest.raises(EnergyUnavailableError, match="no counts of l3_misses to model"):
        modelled_energy({name: values for name, values in COUNTS.items() if name != "l3_misses"})


def test_a_cost_without_a_source_is_refused():
    with pytest.raises(ValueError, match="have a source"):
        EnergyCosts(origin="x", picojoules={"l1_misses": 1.0}, sources={})
