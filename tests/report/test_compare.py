from __future__ import annotations

import math

import numpy as np
import pytest

from cliptex.report.compare import (
    compare,
    compare_all,
    mean_iou,
    paired_bootstrap,
    read_per_image,
    share,
    t_interval,
)
from cliptex.report.names import Measure

DEPTH = Measure("depth", "playroom-depth", "linear", "absrel", "lower")
THINGS = Measure("segmentation", "playroom-voc", "linear", "miou_things", "higher")
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


def test_only_common_seeds_count_and_the_last_row_of_a_seed(make_row):
    rows = [
        make_row("cliptex", 0.9, seed=0),
        make_row("cliptex", 0.1, seed=0),
        make_row("cliptex", 0.5, seed=7),
        make_row("clip-ft", 0.2, seed=0),
        make_row("clip-ft", 0.2, seed=8),
    ]
    (found,) = compare_all(rows, "cliptex", "clip-ft")
    assert found.seeds == (0,) and found.difference.mean == pytest.approx(-0.1)
    assert compare_all(rows, "cliptex", "clip") == []


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


def test_bootstrap_of_a_constant_difference_is_exact():
    base = np.random.default_rng(0).random(50)
    interval = paired_bootstrap(base + 0.25, base, draws=200)
    assert [interval.low, interval.mean, interval.high] == pytest.approx([0.25] * 3)


def test_bootstrap_agrees_with_the_normal_interval():
    rng = np.random.default_rng(1)
    base, noise = rng.normal(0, 10, 400), rng.normal(0.5, 1, 400)
    interval = paired_bootstrap(base + noise, base, draws=4000)
    half = 1.96 * noise.std(ddof=1) / 20
    assert interval.mean == pytest.approx(noise.mean())
    assert interval.low == pytest.approx(noise.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(noise.mean() + half, abs=0.02)


def test_mean_iou_sums_before_it_divides_and_skips_absent_classes():
    # class 0: (1+3)/(2+6) = 50 %, class 1: 1/4 = 25 %, class 2 nowhere
    per_image = np.array([[[1, 2], [1, 4], [0, 0]], [[3, 6], [0, 0], [0, 0]]])  # (2, 3, 2)
    assert mean_iou(per_image.sum(0, keepdims=True).astype(float), 2) == pytest.approx([37.5])
    interval = paired_bootstrap(per_image, per_image, statistic=mean_iou, draws=50)
    assert [interval.low, interval.mean, interval.high] == [0, 0, 0]


def test_bootstrap_refuses_arrays_that_do_not_pair(tmp_path):
    with pytest.raises(ValueError, match="do not pair"):
        paired_bootstrap(np.zeros(3), np.zeros(4))
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match=r"x\.npz: no array named 'values'"):
        read_per_image(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", values=np.arange(3))
    assert read_per_image(tmp_path / "y.npz").tolist() == [0, 1, 2]
