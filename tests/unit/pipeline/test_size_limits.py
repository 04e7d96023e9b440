"""Limits of the size gate: amounts, patterns, which table counts, noise floors."""

import pytest
from pydantic import ValidationError

from phonefit.pipeline.errors import UnknownNameError
from phonefit.pipeline.size.limits import (
    MEASURES,
    Amount,
    Limit,
    amount_of,
    exceeds,
    limited_measures,
    measure_named,
    rule_for,
)


@pytest.mark.parametrize(
    ("words", "amount"),
    [
        ("1%", Amount(relative=0.01)),
        ("16KiB", Amount(absolute=16384)),
        ("4 MB", Amount(absolute=4e6)),
        (4096, Amount(absolute=4096)),
        (0, Amount(absolute=0)),
        (("2%", "1KB"), Amount(1000, 0.02)),
        ((), Amount()),
    ],
)
def test_amounts(words, amount):
    assert amount_of(words) == amount


@pytest.mark.parametrize("words", ["much", "x%", ("1%", "2%"), (1, 2), "-1%", -5, "nan%"])
def test_words_that_are_no_amount_are_refused(words):
    with pytest.raises(ValueError, match=r"write it as|two |negative"):
        amount_of(words)


def test_of_two_amounts_the_smaller_counts():
    amount = Amount(absolute=1000, relative=0.02)
    assert amount.of(10_000) == 200
    assert amount.of(1_000_000) == 1000
    assert Amount().of(5) is None


@pytest.mark.parametrize(("moved", "over"), [(9.99, False), (10.0, False), (10.01, True), (-50, False)])
def test_a_limit_is_exceeded_only_beyond_it(moved, over):
    assert exceeds(Amount(relative=0.01), Amount(), 1000, moved) is over


def test_noise_never_exceeds():
    assert not exceeds(Amount(absolute=0), Amount(absolute=4096), 1e6, 4096)
    assert exceeds(Amount(absolute=0), Amount(absolute=4096), 1e6, 4097)


def test_later_tables_replace_earlier_ones_key_by_key():
    limits = [
        Limit(warn="1%", fail="3%", budget="4MB"),
        Limit(match="app/*.pte", fail=("5%", "64KiB")),
        Limit(match="app/*.pte", measure="instructions", fail="1%"),
    ]
    rule = rule_for(limits, "app/original.pte", "bytes")
    assert (rule.warn, rule.fail, rule.budget) == (Amount(relative=0.01), Amount(65536, 0.05), 4e6)
    assert rule_for(limits, "app/original.tflite", "bytes").fail == Amount(relative=0.03)
    assert rule_for(limits, "app/original.pte", "instructions").fail == Amount(relative=0.01)
    assert limited_measures(limits, "app/original.tflite") == ["bytes"]
    assert limited_measures(limits, "app/original.pte") == ["bytes", "instructions"]


def test_without_tables_the_defaults_of_the_measure_hold():
    rule = rule_for([], "x", "peak_memory")
    assert (rule.warn, rule.fail) == (MEASURES["peak_memory"].warn, MEASURES["peak_memory"].fail)
    assert rule_for([Limit(warn=())], "x", "bytes").warn == Amount()


def test_measures_by_name():
    assert measure_named("section:weights").unit == "bytes"
    with pytest.raises(UnknownNameError, match="did you mean 'instructions'"):
        measure_named("instruction")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"measure": "instruction"}, "unknown measure"),
        ({"warn": "lots"}, "write it as"),
        ({"budget": "5%"}, "must be an amount"),
        ({"measure": "latency", "budget": 5}, "has no budget"),
        ({"measure": "latency", "fail": 5}, "as a ratio"),
        ({"wran": "1%"}, "Extra inputs"),
    ],
)
def test_wrong_tables_are_refused(table, said):
    with pytest.raises(ValidationError, match=said):
        Limit.model_validate(table)
