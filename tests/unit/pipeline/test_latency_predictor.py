"""Latencies predicted from layers: the arithmetic, the left-out error, and when nothing is predicted."""

import numpy as np
import pytest
import torch
from torch import nn

from phonefit.models.spec import Architecture
from phonefit.pipeline.search.latency_predictor import LARGEST_ERROR, LEAST_NETWORKS, fit, layer_sums
from tests.tiny import ARCHITECTURE, build


def reports(count, noise=0.0, seed=0):
    """Latencies of 2 ms + 3 ms a million multiply-adds + 0.5 ms a million elements, with relative noise."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        sums = {"convolution multiply-adds": random.uniform(1, 20), "convolution elements": random.uniform(0.1, 2)}
        exact = 2 + 3 * sums["convolution multiply-adds"] + 0.5 * sums["convolution elements"]
        rows.append((sums, exact * (1 + noise * random.uniform(-1, 1))))
    return rows


def test_the_coefficients_are_found_and_the_error_of_what_was_left_out_is_none():
    predictor = fit(reports(12))
    assert predictor.usable
    assert predictor.constant == pytest.approx(2)
    assert predictor.coefficients["convolution multiply-adds"] == pytest.approx(3)
    assert max(predictor.errors) < 1e-9
    sums = {"convolution multiply-adds": 100.0, "convolution elements": 4.0}
    assert predictor.milliseconds(sums) == pytest.approx(304)
    assert predictor.least_milliseconds(sums) == pytest.approx(304)
    assert "12 reports of 12 networks" in predictor.describe()


def test_a_real_latency_is_not_below_the_least_one_that_is_predicted():
    predictor = fit(reports(30, noise=0.1))
    assert predictor.usable and 0.05 < max(predictor.errors) < LARGEST_ERROR
    assert all(predictor.least_milliseconds(sums) <= measured for sums, measured in reports(200, noise=0.1, seed=1))


def test_the_error_is_that_of_reports_that_the_fit_has_not_seen():
    rows = reports(10)
    odd = (rows[0][0], 1.5 * rows[0][1])
    predictor = fit([odd, *rows[1:]])
    others = fit(rows[1:])
    assert predictor.errors[0] == pytest.approx(abs(others.milliseconds(odd[0]) / odd[1] - 1))
    assert not predictor.usable  # half as much again is not small


def test_many_reports_of_few_networks_are_not_enough():
    rows = reports(LEAST_NETWORKS - 1) * 5
    predictor = fit(rows)
    assert (len(predictor.errors), predictor.networks) == (len(rows), LEAST_NETWORKS - 1)
    assert not predictor.usable
    assert predictor.least_milliseconds(rows[0][0]) == 0.0
    assert "not used yet" in predictor.describe()
    assert fit([]) is None
    assert fit(reports(1) * 3) is None


def test_nothing_is_known_of_a_kind_of_layer_that_no_report_had():
    predictor = fit(reports(12))
    assert predictor.least_milliseconds({"convolution multiply-adds": 1.0, "linear multiply-adds": 1.0}) == 0.0


def test_the_sums_over_the_layers_of_a_network():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 4, 1))
    network.extend([nn.Flatten(), nn.Linear(4 * 16 * 16, 5)])
    architecture = Architecture(factory="any:build", outputs=5, height=32, width_pixels=32)
    sums = {name: round(value * 1e6) for name, value in layer_sums(network, architecture).items()}
    assert sums == {  # by hand: weights x places; weights + inputs + outputs
        "convolution multiply-adds": 216 * 256,
        "convolution elements": 216 + 3 * 1024 + 8 * 256,
        "depthwise multiply-adds": 72 * 256,
        "depthwise elements": 72 + 8 * 256 + 8 * 256,
        "pointwise multiply-adds": 32 * 256,
        "pointwise elements": 32 + 8 * 256 + 4 * 256,
        "linear multiply-adds": 5120,
        "linear elements": 5120 + 1024 + 5,
    }
    torch.manual_seed(0)
    assert set(layer_sums(build(3), ARCHITECTURE)) > {"depthwise elements", "linear multiply-adds"}
