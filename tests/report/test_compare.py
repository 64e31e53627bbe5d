from __future__ import annotations

import math

import pytest

from cliptex.report.compare import (
    compare,
    compare_all,
    share,
    t_interval,
    values_by_seed,
)
from cliptex.report.names import Measure, measures_in_order

DEPTH = Measure("depth", "playroom-depth", "linear", "absrel", "lower", 300, "128 px")
THINGS = Measure("segmentation", "playroom-voc", "linear", "miou_things", "higher", 300, "128 px")
T_975_2 = 4.302652729911275  # Student's t, two degrees of freedom, from a printed table: 4.303


def test_t_interval_by_hand():
    # mean 2, s = 1, s/sqrt(3) = 0.57735; 4.303 * 0.57735 = 2.4841
    interval = t_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.low == pytest.approx(2 - 2.4841, abs=1e-3)
    assert interval.high == pytest.approx(2 + 2.4841, abs=1e-3)
    assert not interval.above_zero and not interval.below_zero


def test_one_value_has_no_interval_and_claims_nothing():
    interval = t_interval([3.0])
    assert (interval.low, interval.high, interval.above_zero) == (None, None, False)
    with pytest.raises(ValueError, match="at least one value"):
        t_interval([])


def test_compare_is_paired_over_seeds(rows):
    found = compare(rows, THINGS, "cliptex", "clip-ft")
    assert found is not None
    # differences 4, 5, 6: mean 5, s = 1 although each model alone varies by 2 or more
    assert found.difference.mean == pytest.approx(5)
    assert found.difference.low == pytest.approx(5 - T_975_2 / math.sqrt(3))
    assert found.relative.mean == pytest.approx((4 / 20 + 5 / 22 + 6 / 24) / 3 * 100)


def test_lower_is_better_turns_the_sign(rows):
    found = compare(rows, DEPTH, "cliptex", "clip-ft")
    assert found is not None
    assert found.difference.mean == pytest.approx(-0.08)
    assert found.improvement.mean == pytest.approx(0.08)
    assert found.relative.mean == pytest.approx(20)


def test_only_common_seeds_count(make_row):
    rows = [
        make_row("cliptex", 0.1, seed=0),
        make_row("cliptex", 0.5, seed=7),
        make_row("clip-ft", 0.2, seed=0),
        make_row("clip-ft", 0.2, seed=8),
    ]
    (found,) = compare_all(rows, "cliptex", "clip-ft")
    assert found.seeds == (0,) and found.difference.mean == pytest.approx(-0.1)
    assert compare_all(rows, "cliptex", "clip") == []


def test_values_by_seed__recipes_do_not_mix(make_row):
    rows = [make_row("clip", v, protocol={"recipe": r}) for r, v in (("fast", 1.0), ("paper", 2.0))]
    fast, paper = measures_in_order(rows)
    assert values_by_seed(rows, fast, "clip") == {0: 1.0}
    assert values_by_seed(rows, paper, "clip") == {0: 2.0}


def test_values_by_seed__a_row_may_be_repeated_but_not_contradicted(make_row):
    rows = [make_row("clip", 0.5, protocol={"epochs": e, "lr": 0.1}) for e in (1, 1, 2)]
    measure = Measure.of(rows[0])
    assert values_by_seed(rows, measure, "clip") == {0: 0.5}
    rows[2] = rows[2].model_copy(update={"value": 0.25})
    with pytest.raises(ValueError, match=r"0\.5 .*0\.25 .*; protocol\.epochs differ"):
        values_by_seed(rows, measure, "clip")
    absent = [make_row("clip", math.nan), make_row("clip", math.nan)]
    assert math.isnan(values_by_seed(absent, measure, "clip")[0])


def test_compare__other_images_or_another_split_are_another_test(make_row):
    def pair(first, second) -> int:
        rows = [make_row("a", 1.0, **first), make_row("b", 2.0, **second)]
        return len(compare_all(rows, "a", "b"))

    val, sub = ({"protocol": {"test_split": split}} for split in ("val", "sub"))
    assert (pair(val, val), pair(val, sub)) == (1, 0)
    assert (pair({"n": 4}, {"n": 4}), pair({"n": 4}, {"n": 8})) == (1, 0)


def test_values_by_seed__a_model_may_have_been_tested_on_two_splits(make_row):
    rows = [make_row("a", v, protocol={"test_split": s}) for s, v in (("val", 1.0), ("test", 2.0))]
    rows += [make_row("b", 4.0, protocol={"test_split": "test"})]
    (found,) = compare_all(rows, "a", "b")
    assert found.measure.variant == "test split" and found.difference.mean == -2


def test_compare__says_in_what_the_two_are_not_alike(make_row):
    rows = [make_row("a", 1.0, protocol={"epochs": 300}), make_row("b", 2.0, seed=7)]
    rows += [make_row("b", 2.0, protocol={"epochs": 12})]
    (found,) = compare_all(rows, "a", "b")
    assert found.unlike == "epochs 12 / 300"  # the baseline's first, as in `before -> after`


def test_zero_baseline_gives_no_relative_gain(make_row):
    (found,) = compare_all([make_row("a", 1.0), make_row("b", 0.0)], "a", "b")
    assert math.isnan(found.relative.mean) and found.difference.mean == 1


def test_share_of_perfect_and_of_placebo(rows):
    names = {"part": "cliptex", "whole": "cliptex-perfect", "base": "clip-ft"}
    assert share(rows, THINGS, **names) == pytest.approx(5 / 10)
    assert share(rows, DEPTH, **names) == pytest.approx(0.08 / 0.16)
    placebo = {"part": "cliptex-placebo", "whole": "cliptex", "base": "clip-ft"}
    assert share(rows, THINGS, **placebo) == pytest.approx((1 / 3) / 5)
    assert share(rows, DEPTH, **placebo) == pytest.approx(-0.02 / 0.08)


def test_share_of_no_gain_is_not_a_number(rows):
    assert math.isnan(share(rows, THINGS, part="cliptex", whole="clip", base="clip-ft"))
    assert math.isnan(share(rows, THINGS, part="cliptex", whole="absent", base="clip-ft"))
