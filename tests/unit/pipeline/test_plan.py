"""The choice of a plan as pure functions: candidates, limits, measurements -> the candidate to build."""

import pytest

from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.compress.plan import (
    MIXED,
    Candidate,
    Knowledge,
    Point,
    best_of_each,
    between,
    corrections,
    expectation,
    learned,
    predicted,
    ranked,
)
from phonefit.pipeline.compress.plan_structures import (
    Structure,
    built_steps,
    family,
    halfway,
    hope,
    is_milder,
    quantisations,
    structural_steps,
    structures,
)
from phonefit.pipeline.recipe_auto import AutoConfig
from phonefit.pipeline.recipe_steps import DecomposeConfig, DistilConfig, PruneConfig, QuantiseConfig, RecoverConfig

RUNTIMES = ("tflite",)
LATENCY = {"latency_p90_ms": 10.0}


def candidate(structure="as it is", precision="float", kept=1.0, loss=0.0, rounded=0.0, changed=0.0):
    return Candidate(
        structure=structure,
        precision=precision,
        changed_loss=loss,
        rounded_loss=rounded,
        changed_share=changed,
        rounded_share=0.0,
        multiply_adds=int(1000 * kept),
        bytes=int(4000 * kept / (4 if precision.startswith("int8") else 1)),
        layers=10,
    )


def point(of, runtime="tflite", **figures):
    return Point(runtime, of.structure, of.precision, of.multiply_adds, of.bytes, of.layers, figures)


WHOLE = candidate()
WHOLE_INT8 = candidate(precision="int8_static", rounded=0.1)
HALF = candidate("prune 0.5", kept=0.5, loss=0.5)
HALF_INT8 = candidate("prune 0.5", "int8_static", kept=0.5, loss=0.5, rounded=0.1)
ALL = [WHOLE, WHOLE_INT8, HALF, HALF_INT8]


def test_what_fits_with_the_least_loss_is_first():
    knowledge = Knowledge((point(WHOLE, latency_p90_ms=30.0), point(WHOLE_INT8, latency_p90_ms=12.0)))
    choices = ranked(ALL, LATENCY, knowledge, RUNTIMES)
    assert [choice.candidate for choice in choices] == [HALF_INT8, WHOLE_INT8, HALF, WHOLE]
    assert choices[0].fits
    assert choices[0].figures == {"latency_p90_ms": 6.0}
    assert not choices[1].fits


def test_nothing_is_done_where_the_parent_fits():
    assert ranked(ALL, {"file_size": 10_000.0}, Knowledge(), RUNTIMES)[0].candidate == WHOLE


def test_an_impossible_budget_has_no_choice_that_fits_and_the_nearest_comes_first():
    choices = ranked(ALL, {"file_size": 400.0}, Knowledge(), RUNTIMES)
    assert not any(choice.fits for choice in choices)
    assert choices[0].candidate == HALF_INT8
    assert choices[0].ratio == pytest.approx(500 / 400)


def test_every_cost_limit_counts():
    knowledge = Knowledge(tuple(point(one, latency_p90_ms=20.0) for one in (WHOLE, WHOLE_INT8)))
    for size, best in ((2500.0, HALF), (1500.0, HALF_INT8)):  # WHOLE_INT8 is small enough, and too slow
        limits = {"file_size": size, "latency_p90_ms": 14.0}
        assert ranked(ALL, limits, knowledge, RUNTIMES)[0].candidate == best


def test_a_prediction_must_leave_the_margin_and_a_measurement_need_not():
    limits = {"latency_p90_ms": 10.0}
    scaled = Knowledge((point(WHOLE, latency_p90_ms=19.8),))
    assert not expectation(HALF, limits, scaled, RUNTIMES, margin=0.02).fits
    measured = Knowledge((point(WHOLE, latency_p90_ms=19.8), point(HALF, latency_p90_ms=9.9)))
    assert expectation(HALF, limits, measured, RUNTIMES, margin=0.02).fits


def test_costs_are_scaled_by_one_measurement_and_lie_on_a_line_through_two():
    quarter = candidate("prune 0.25", kept=0.25)
    one = Knowledge((point(WHOLE, latency_p90_ms=20.0),))
    assert predicted(quarter, "tflite", "latency_p90_ms", one) == 5.0
    two = Knowledge((*one.points, point(HALF, latency_p90_ms=14.0)))
    assert predicted(quarter, "tflite", "latency_p90_ms", two) == pytest.approx(11.0)
    noise = Knowledge((*one.points, point(HALF, latency_p90_ms=21.0)))  # a line that falls says nothing
    assert predicted(quarter, "tflite", "latency_p90_ms", noise) == pytest.approx(10.5)


def test_sizes_are_the_weights_and_what_each_layer_has_besides():
    knowledge = Knowledge((point(WHOLE, file_size=4500.0, peak_memory=9000.0),))
    assert predicted(HALF, "tflite", "file_size", knowledge) == 2500.0
    assert predicted(HALF, "tflite", "peak_memory", knowledge) == 7000.0
    doubled = Candidate("d", "float", 0, 0, 0, 0, 500, 2000, layers=20)
    assert predicted(doubled, "tflite", "file_size", knowledge) == 3000.0


def test_what_was_never_measured_is_hoped_for_so_that_it_is_asked():
    assert predicted(HALF_INT8, "tflite", "file_size", Knowledge()) == 500.0
    assert predicted(HALF_INT8, "tflite", "latency_p90_ms", Knowledge()) == 0.0
    assert not Knowledge((point(HALF, latency_p90_ms=1.0),)).is_measured(HALF_INT8, RUNTIMES)
    assert Knowledge((point(HALF, latency_p90_ms=1.0),)).is_measured(HALF, RUNTIMES)


def test_the_last_measurement_of_a_candidate_counts():
    knowledge = Knowledge((point(HALF, latency_p90_ms=9.0), point(HALF, latency_p90_ms=11.0)))
    assert predicted(HALF, "tflite", "latency_p90_ms", knowledge) == 11.0
    assert not expectation(HALF, LATENCY, knowledge, RUNTIMES).fits


def test_one_runtime_that_meets_the_limits_is_enough():
    knowledge = Knowledge((point(WHOLE, latency_p90_ms=30.0), point(WHOLE, "onnx", latency_p90_ms=9.0)))
    choice = expectation(WHOLE, LATENCY, knowledge, ("tflite", "onnx"))
    assert (choice.runtime, choice.fits) == ("onnx", True)


def test_where_only_the_quality_is_limited_the_smallest_that_keeps_it_is_first():
    kept = candidate("prune 0.5", "int8_static", kept=0.5, changed=0.01)
    lost = candidate("prune 0.25", "int8_static", kept=0.25, changed=0.2)
    choices = ranked([WHOLE, kept, lost], {"quality_drop": 0.02}, Knowledge(), RUNTIMES)
    assert [choice.candidate for choice in choices] == [kept, WHOLE, lost]
    assert not choices[2].fits


def test_a_built_plan_teaches_how_much_recovery_brings():
    first = Knowledge(share_left=0.3)
    after = learned(first, HALF, loss=0.05, drop=0.0, trained=True)
    assert after.share_left == pytest.approx(0.1)
    assert after.drop_scale is None  # no drop says nothing about others
    changed = candidate("prune 0.5", loss=0.5, changed=0.4)
    after = learned(first, changed, loss=0.05, drop=0.08, trained=True)
    assert after.drop(changed) == pytest.approx(0.08)
    assert learned(first, changed, loss=0.4, drop=0.08, trained=False).share_left == 0.3


def test_a_measured_quality_keeps_out_what_would_lose_as_much():
    changed = candidate("prune 0.5", kept=0.5, loss=0.5, changed=0.4)
    limits = {"latency_p90_ms": 100.0, "quality_drop": 0.05}
    knowledge = Knowledge((point(changed, latency_p90_ms=10.0),), share_left=0.3)
    assert expectation(changed, limits, knowledge, RUNTIMES).fits
    after = learned(knowledge, changed, loss=0.15, drop=0.08, trained=True)
    assert not expectation(changed, limits, after, RUNTIMES).fits
    assert expectation(WHOLE, limits, after, RUNTIMES).fits


def test_corrections_are_measured_over_expected():
    assert corrections({"file_size": 100.0, "quality_drop": 0.1, "ram": 0.0}, {"file_size": 110.0, "ram": 5.0}) == {
        "file_size": pytest.approx(1.1)
    }


def test_between_finds_the_next_milder_structure_that_is_too_dear():
    shares = {"as it is": 1.0, "prune 0.7": 0.7, "prune 0.5": 0.5}
    milder = candidate("prune 0.7", kept=0.7, loss=0.2)
    knowledge = Knowledge((point(WHOLE, latency_p90_ms=18.0),))
    choices = ranked([WHOLE, milder, HALF], LATENCY, knowledge, RUNTIMES)
    assert choices[0].candidate == HALF
    assert between(shares, choices[0], choices) == ("prune 0.5", "prune 0.7")
    assert between({}, choices[0], choices) is None
    assert between(shares, choices[1], choices) is None  # it does not fit


def test_the_table_shows_at_most_two_of_a_structure():
    choices = ranked([WHOLE, WHOLE_INT8, candidate(precision="fp16"), HALF], {"file_size": 9e9}, Knowledge(), RUNTIMES)
    shown = [choice.candidate.structure for choice in best_of_each(choices, 8)]
    assert shown == ["as it is", "as it is", "prune 0.5"]


def auto(**values):
    return AutoConfig.model_validate({"auto": True, **values})


def test_the_grid_holds_what_is_asked_for():
    names = [structure.name for structure in structures(auto())]
    assert names[0] == "as it is"
    assert {"prune 0.7", "decompose 0.7", "prune 0.7 + decompose 0.8"} <= set(names)
    assert [one.name for one in structures(auto(techniques=["quantise"]))] == ["as it is"]
    assert all(one.decompose is None for one in structures(auto(techniques=["prune"])))


@pytest.mark.parametrize(
    ("milder", "stronger", "middle"),
    [
        (Structure(), Structure(prune=0.5), Structure(prune=0.75)),
        (Structure(), Structure(decompose=0.5), Structure(decompose=0.75)),
        (Structure(prune=0.7), Structure(prune=0.5), Structure(prune=0.6)),
        (Structure(0.7, 0.8), Structure(0.4, 0.8), Structure(0.55, 0.8)),
    ],
)
def test_halfway(milder, stronger, middle):
    assert halfway(milder, stronger) == middle
    assert family(middle) == family(stronger)


def test_schemes_are_those_that_every_runtime_runs():
    assert set(quantisations(auto(), ("executorch", "tflite", "onnx"))) == {"int8_static", "int8_dynamic", "fp16"}
    assert quantisations(auto(), ("onnx",))["int4_weights"].granularity == "per_block"
    assert quantisations(auto(techniques=["prune"]), ("onnx",)) == {}
    assert list(quantisations(auto(schemes=["fp16"]), ("onnx",))) == ["fp16"]


def test_what_is_not_scored_is_hoped_to_lose_as_the_nearest_milder_one():
    whole, seventy = candidate(precision="fp16"), candidate("prune 0.7", "fp16", loss=0.3, changed=0.15)
    scored = {Structure(): whole}
    first = hope(Structure(0.7), scored, whole)
    assert (first.name, first.bytes, first.multiply_adds) == ("prune 0.7, fp16", 2800, 700)
    assert 0 < first.changed_loss < 1e-5
    assert first.changed_loss < hope(Structure(0.5), scored, whole).changed_loss
    scored[Structure(0.7)] = seventy
    then = hope(Structure(0.4), scored, whole)
    assert then.changed_loss == pytest.approx(0.6, rel=1e-3)
    assert then.changed_share == pytest.approx(0.3, rel=1e-3)
    assert hope(Structure(0.5), {Structure(): whole}, whole, least=0.1).changed_loss == pytest.approx(0.05)
    apart = hope(Structure(decompose=0.5), scored, whole)  # pruning says nothing about it
    assert apart.changed_loss < 1e-5


def test_milder_keeps_at_least_as_much_in_every_respect():
    assert is_milder(Structure(), Structure(0.7))
    assert is_milder(Structure(0.7), Structure(0.5, 0.8))
    assert not is_milder(Structure(0.7), Structure(decompose=0.5))


SCHEMES = {"int8_static": Quantisation()}


def built(structure, precision, effort=0, **values):
    return built_steps(structure, precision, auto(**values), SCHEMES, 4000, False, 0.02, effort)


def test_a_plan_is_built_of_ordinary_steps():
    steps = built(Structure(0.7, 0.8), "int8_static", recover={"epochs": 2})
    assert [step.technique for step in steps] == ["prune", "decompose", "distil", "quantise"]
    prune, decompose, distil, _ = steps
    assert isinstance(prune, PruneConfig)
    assert isinstance(decompose, DecomposeConfig)
    assert isinstance(distil, DistilConfig)
    assert (prune.multiply_adds, prune.recover.epochs, decompose.recover.epochs, distil.epochs) == (0.7, 0, 0, 2)
    assert structural_steps(Structure(0.7, 0.8), 4000, False, RecoverConfig(epochs=0)) == steps[:2]  # as it was scored


def test_without_distil_each_step_recovers():
    (prune,) = built(Structure(0.7), "float", techniques=["prune"], recover={"epochs": 3})
    assert isinstance(prune, PruneConfig)
    assert prune.recover.epochs == 3


def test_more_effort_trains_longer_and_trains_int8():
    prune, distil, quantise = built(Structure(0.7), "int8_static", effort=1, recover={"epochs": 2})
    assert isinstance(distil, DistilConfig)
    assert isinstance(quantise, QuantiseConfig)
    assert distil.epochs == 4
    assert quantise.qat is not None
    assert prune == built(Structure(0.7), "int8_static", recover={"epochs": 2})[0]


def test_mixed_precision_may_lose_half_of_what_the_budget_allows():
    (step,) = built(Structure(), MIXED)
    assert isinstance(step, QuantiseConfig)
    assert step.mixed is not None
    assert step.mixed.quality_drop == 0.01


def test_shares_are_of_the_bytes_where_bytes_are_limited():
    prune, decompose = structural_steps(Structure(0.5, 0.8), 4000, True, RecoverConfig())
    assert isinstance(prune, PruneConfig)
    assert isinstance(decompose, DecomposeConfig)
    assert prune.bytes == 2000
    assert decompose.target is not None
    assert decompose.target.bytes == 0.8
