from __future__ import annotations

import numpy as np
import pytest

from cliptex.per_image import per_image_path, save_per_image
from cliptex.report.bootstrap import (
    compare_images,
    formula_of,
    mean_of_ratios,
    paired_bootstrap,
    read_per_image,
)
from cliptex.report.names import Measure


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


def test_mean_of_ratios_sums_before_it_divides_and_skips_absent_classes():
    # class 0: (1+3)/(2+6) = 50 %, class 1: 1/4 = 25 %, class 2 nowhere
    per_image = np.array([[[1, 2], [1, 4], [0, 0]], [[3, 6], [0, 0], [0, 0]]])  # (2, 3, 2)
    assert mean_of_ratios(per_image.sum(0, keepdims=True).astype(float), 2) == pytest.approx([37.5])
    interval = paired_bootstrap(per_image, per_image, formula=mean_of_ratios, draws=50)
    assert [interval.low, interval.mean, interval.high] == [0, 0, 0]


def test_bootstrap_refuses_arrays_that_do_not_pair(tmp_path):
    with pytest.raises(ValueError, match="do not pair"):
        paired_bootstrap(np.zeros(3), np.zeros(4))
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match=r"x\.npz: no array named 'values'"):
        read_per_image(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", values=np.arange(3))
    assert read_per_image(tmp_path / "y.npz")["values"].tolist() == [0, 1, 2]


ANGLE = {"task": "normals", "dataset": "d", "better": "higher"}


def test_pooled_metrics__a_large_picture_weighs_more(make_row):
    # 9 of 10 and 0 of 90 pixels are near: 9 % of all, while the mean over images is 45 %
    pairs = np.array([[9, 10], [0, 90]])
    row = make_row("clip", 9.0, **{**ANGLE, "metric": "a30"})
    formula = formula_of(Measure.of(row), pairs)
    assert formula(pairs.sum(0, keepdims=True).astype(float), 2) == pytest.approx([9.0])


@pytest.mark.parametrize(("metric", "value"), [("mean", 4.5), ("rmse", 4.5**0.5)])
def test_pooled_metrics__angles_and_roots(make_row, metric, value):
    pairs = np.array([[30.0, 4], [15.0, 6]])  # sums of angles or of squares, and pixels
    row = make_row("clip", value, task="normals", metric=metric)
    formula = formula_of(Measure.of(row), pairs)
    assert formula(pairs.sum(0, keepdims=True), 2) == pytest.approx([value])


def test_pooled_bootstrap__agrees_with_a_ratio_of_drawn_sums():
    rng = np.random.default_rng(3)
    valid = rng.integers(1, 100, 40)
    ours, baseline = (np.stack([rng.binomial(valid, p), valid], 1) for p in (0.6, 0.5))
    formula = formula_of(Measure("normals", "d", None, "a30", "higher"), ours)
    interval = paired_bootstrap(ours, baseline, formula=formula, draws=300, seed=5)
    picks = np.random.default_rng(0).integers(0, 40, (300, 40))
    drawn = [100 * (ours[p, 0].sum() - baseline[p, 0].sum()) / valid[p].sum() for p in picks]
    assert interval.mean == pytest.approx(100 * (ours - baseline)[:, 0].sum() / valid.sum())
    assert interval.low == pytest.approx(np.quantile(drawn, 0.025), abs=1.2)
    assert interval.high == pytest.approx(np.quantile(drawn, 0.975), abs=1.2)


def test_compare_images__recipes_have_files_of_their_own(make_row, tmp_path):
    kept = {}
    for recipe, shift in (("fast", 0.0), ("paper", 1.0)):
        for model, value in (("cliptex", 3.0 + shift), ("clip-ft", 2.0)):
            row = make_row(model, value, probe="linear", protocol={"recipe": recipe})
            kept[recipe, model] = row
            save_per_image(tmp_path, row, np.full(5, value))
    assert len(list(tmp_path.glob("*.npz"))) == 4
    found = compare_images(list(kept.values()), [tmp_path], "cliptex", "clip-ft")
    assert [c.difference and c.difference.mean for c in found] == [1.0, 2.0]


def test_compare_images__values_that_are_not_those_of_the_row_show_no_interval(make_row, tmp_path):
    rows = [make_row(model, value) for model, value in (("cliptex", 0.3), ("clip-ft", 0.2))]
    for row in rows:
        save_per_image(tmp_path, row, np.full(4, 0.2))
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.difference is None


def test_compare_images__seeds_may_lie_in_several_folders(make_row, tmp_path):
    rows = [make_row(model, 0.5, seed=1) for model in ("cliptex", "clip-ft")]
    for row in rows:
        save_per_image(tmp_path / "two", row, np.full(4, 0.5))
    (found,) = compare_images(rows, [tmp_path / "one", tmp_path / "two"], "cliptex", "clip-ft")
    assert found.n == 4 and found.difference is not None


def test_compare_images__names_the_files_that_do_not_pair(make_row, tmp_path):
    rows = [make_row(model, 0.5) for model in ("cliptex", "clip-ft")]
    for row, n in zip(rows, (4, 5), strict=True):
        save_per_image(tmp_path, row, np.full(n, 0.5))
    with pytest.raises(ValueError, match=r"cliptex--.*npz and .*clip-ft--.*do not pair"):
        compare_images(rows, [tmp_path], "cliptex", "clip-ft")


def test_per_image_path__models_named_like_paths_stay_in_the_folder(make_row, tmp_path):
    path = per_image_path(tmp_path, make_row("../runs/a:b", 0.5))
    assert path.parent == tmp_path
    assert path != per_image_path(tmp_path, make_row("..runsa:b", 0.5))
