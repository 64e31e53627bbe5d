from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

from cliptex.metrics import ImageConfusion, mean_per_class
from cliptex.per_image import OF_CLASSES, per_image_path, save_per_image
from cliptex.report import bootstrap as module
from cliptex.report.bootstrap import (
    bootstrap,
    compare_images,
    formula_of,
    mean_iou,
    of_arrays,
    of_classes,
    paired_bootstrap,
    read_per_image,
)
from cliptex.report.comparability import with_splits
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


DRAWN = np.array([[1, 1], [2, 0], [0, 2]])  # of two images: each once, the first or second twice


def areas_of(classes: int, *pictures: tuple[list[int], list[int]]) -> ImageConfusion:
    """Of pictures given as (prediction, truth)."""
    confusion = ImageConfusion(classes)
    for prediction, truth in pictures:
        confusion.update(np.array(prediction), np.array(truth))
    return confusion


def test_mean_iou__sums_before_it_divides_and_skips_absent_classes():
    # areas are intersection, prediction, truth
    # class 0: (1+3) / (2+6 united) = 50 %, class 1: 1/4 = 25 %, class 2 nowhere
    per_image = np.array([[[1, 2, 1], [1, 2, 3], [0, 0, 0]], [[3, 4, 5], [0, 0, 0], [0, 0, 0]]])
    assert mean_iou(per_image.sum(0, keepdims=True).astype(float), 2) == pytest.approx([37.5])
    interval = paired_bootstrap(per_image, per_image, formula=mean_iou, draws=50)
    assert [interval.low, interval.mean, interval.high] == [0, 0, 0]


def test_mean_iou__a_false_positive_does_not_bring_an_absent_class_into_a_draw():
    first = ([0, 0, 1, 1], [0, 0, 1, 1])
    ours = areas_of(2, first, ([0, 0, 0, 1], [0, 0, 0, 0]))  # one pixel is called 1
    baseline = areas_of(2, first, ([0, 0, 0, 0], [0, 0, 0, 0]))
    found = [of_arrays(one.areas(), mean_iou)(DRAWN) for one in (ours, baseline)]
    # ours, both: class 0 is 5/6, class 1 is 2/3; the second twice: class 0 is 6/8, no class 1
    assert found[0] == pytest.approx([100 * (5 / 6 + 2 / 3) / 2, 100, 75])
    assert found[1].tolist() == [100, 100, 100]


@pytest.mark.parametrize("classes", [None, [1, 2, 4]])
def test_mean_iou__every_image_once_is_the_point_value(classes):
    rng = np.random.default_rng(0)
    confusion = ImageConfusion(6)  # 4 is predicted but never true, 5 is neither
    for _ in range(7):
        confusion.update(rng.integers(0, 5, 40), rng.choice([0, 1, 2, 3, 255], 40))
    areas = confusion.areas() if classes is None else confusion.areas()[:, classes]
    once = of_arrays(areas, mean_iou)(np.ones((1, 7), int))
    assert once == pytest.approx([confusion.miou(classes)])
    assert of_arrays(areas, mean_iou)(np.zeros((1, 7), int)) == pytest.approx([np.nan], nan_ok=True)


def records(labels, hits) -> np.ndarray:
    found = np.zeros(len(labels), OF_CLASSES)
    found["label"], found["hit"] = labels, hits
    return found


def test_of_classes__worked_by_hand():
    # class 3: right, wrong; class 1: right
    found = of_classes(records([3, 1, 3], [True, True, False]))
    drawn = np.array([[1, 1, 1], [3, 0, 0], [1, 0, 2], [0, 3, 0]])
    assert found(drawn) == pytest.approx([75, 100, 100 / 3, 100])


def test_of_classes__is_the_metric_of_the_drawn_images():
    rng = np.random.default_rng(1)
    labels, hits = rng.integers(0, 9, 30), rng.random(30) < 0.6
    drawn = rng.multinomial(30, np.full(30, 1 / 30), size=20)
    expected = [mean_per_class(hits.repeat(row), labels.repeat(row), 9) for row in drawn]
    assert of_classes(records(labels, hits))(drawn) == pytest.approx(expected)


def test_bootstrap__draws_in_parts_are_the_same_draws(monkeypatch):
    rng = np.random.default_rng(2)
    ours, baseline = rng.normal(size=(2, 50))
    weights = np.random.default_rng(7).multinomial(50, np.full(50, 1 / 50), size=101)
    drawn = weights @ (ours - baseline) / 50
    monkeypatch.setattr(module, "CHUNK_BYTES", 8 * 4 * 50 * 30)  # 30 draws at once
    interval = paired_bootstrap(ours, baseline, draws=101, seed=7)
    assert interval.low == pytest.approx(np.quantile(drawn, 0.025))
    assert interval.high == pytest.approx(np.quantile(drawn, 0.975))


@pytest.mark.parametrize("kind", ["values", "classes"])
def test_bootstrap__memory_is_bounded(kind, monkeypatch):
    n = 20_000
    monkeypatch.setattr(module, "CHUNK_BYTES", 2**23)
    if kind == "values":
        statistic = of_arrays(np.arange(float(n)), module.mean_of_values)
    else:
        statistic = of_classes(records(np.arange(n) % 100, np.arange(n) % 3 == 0))
    tracemalloc.start()
    bootstrap(statistic, statistic, n, draws=100, seed=0)  # 16 MB of draws alone
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * 2**23


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
    formula = formula_of(Measure("normals", "d", None, "a30", "higher", 40), ours)
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
    assert found.difference is None and "do not give the row's value" in found.problem


def test_compare_images__means_over_classes(make_row, tmp_path):
    labels, hits = np.array([0, 0, 0, 1]), {"cliptex": [1, 1, 0, 1], "clip-ft": [0, 1, 0, 0]}
    about = {"task": "classification", "metric": "mean_per_class", "better": "higher"}
    rows = []
    for model, right in hits.items():
        value = mean_per_class(np.array(right, bool), labels, 2)
        rows.append(make_row(model, value, **about))
        save_per_image(tmp_path, rows[-1], records(labels, right))
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.n == 4 and found.difference is not None
    assert found.difference.mean == pytest.approx((200 / 3 + 100) / 2 - (100 / 3 + 0) / 2)
    save_per_image(tmp_path, rows[0], records(1 - labels, hits["cliptex"]))
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.difference is None and "not scored on the same classes" in found.problem


def test_compare_images__right_or_wrong_of_older_versions_is_read(make_row, tmp_path):
    labels, hits = np.array([0, 0, 1, 1]), {"cliptex": [1, 1, 0, 1], "clip-ft": [0, 1, 0, 0]}
    about = {"task": "classification", "metric": "mean_per_class", "better": "higher"}
    rows = []
    for model, right in hits.items():
        rows.append(make_row(model, mean_per_class(np.array(right), labels, 2), **about))
        old = np.dtype([("label", "<i4"), ("hit", "?")]) if model == "clip-ft" else OF_CLASSES
        save_per_image(tmp_path, rows[-1], records(labels, right).astype(old))
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.difference is not None and found.difference.mean == pytest.approx(75 - 25)


@pytest.mark.parametrize("old", [(0, 1), (1,)])
def test_compare_images__areas_without_the_truth_s_show_no_interval(make_row, tmp_path, old):
    about = {"task": "segmentation", "metric": "miou", "better": "higher"}
    rows = [make_row(model, 100.0, **about) for model in ("cliptex", "clip-ft")]
    for i, row in enumerate(rows):
        save_per_image(tmp_path, row, np.ones((4, 5, 2 if i in old else 3), np.int32))
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.difference is None and "run the probe again" in found.problem


def retrieval(make_row, hits: dict[str, np.ndarray]) -> list:
    """Rows of image R@1 by `hits` (N, 5) of the five captions of each picture."""
    about = {"task": "retrieval", "metric": "image_r1", "better": "higher"}
    return [make_row(m, 100 * own.mean(), n=len(own), **about) for m, own in hits.items()]


def test_compare_images__captions_of_one_picture_are_drawn_together(make_row, tmp_path):
    pictures = np.arange(60)[:, None]
    found = {"cliptex": (pictures >= 10) & (pictures < 40), "clip-ft": pictures < 20}
    hits = {model: np.repeat(own, 5, axis=1) for model, own in found.items()}
    rows = retrieval(make_row, hits)
    for row, own in zip(rows, hits.values(), strict=True):
        save_per_image(tmp_path, row, np.stack([own.sum(1), np.full(60, 5)], axis=1))
    (shown,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    # 20 pictures are gained and 10 lost: the deviation of the mean is 8.9 points
    assert shown.n == 60 and shown.difference is not None
    assert shown.difference.mean == pytest.approx(100 / 6)
    assert shown.difference.low == pytest.approx(100 / 6 - 1.96 * 8.9, abs=2)
    assert shown.difference.high == pytest.approx(100 / 6 + 1.96 * 8.9, abs=2)


@pytest.mark.parametrize("old", [(0, 1), (1,)])
def test_compare_images__one_value_per_caption_shows_no_interval(make_row, tmp_path, old):
    hits = np.ones((4, 5))
    rows = retrieval(make_row, {"cliptex": hits, "clip-ft": hits})
    for i, row in enumerate(rows):
        kept = 100 * hits.ravel() if i in old else np.stack([hits.sum(1), np.full(4, 5)], axis=1)
        save_per_image(tmp_path, row, kept)
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.difference is None and found.n == 4
    assert "one value per caption; remove these rows" in found.problem


def test_compare_images__text_retrieval_keeps_one_hit_per_picture(make_row, tmp_path):
    about = {"task": "retrieval", "metric": "text_r1", "better": "higher", "n": 5}
    rows = [make_row(model, value, **about) for model, value in (("cliptex", 100), ("clip-ft", 0))]
    for row in rows:
        save_per_image(tmp_path, row, np.full(5, row.value))
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.n == 5 and found.difference and found.difference.mean == 100


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
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.difference is None
    assert re.match(r"none: cliptex--.*npz and clip-ft--.*npz: .*do not pair", found.problem)


def test_compare_images__splits_have_files_of_their_own(make_row, tmp_path):
    rows = []
    for split, shift in (("val", 0.0), ("test", 1.0)):
        for model, value in (("cliptex", 3.0 + shift), ("clip-ft", 2.0)):
            rows.append(make_row(model, value, protocol={"test_split": split}))
            save_per_image(tmp_path, rows[-1], np.full(5, value))
    found = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert [c.difference and c.difference.mean for c in found] == [1.0, 2.0]


def test_compare_images__rows_that_others_told_their_split_keep_their_files(make_row, tmp_path):
    rows = [
        make_row("cliptex", 3.0, protocol={"test_split": "val"}),
        make_row("clip-ft", 2.0),  # of an older version
    ]
    for row in rows:
        save_per_image(tmp_path, row, np.full(5, row.value))
    (found,) = compare_images(with_splits(rows), [tmp_path], "cliptex", "clip-ft")
    assert found.difference and found.difference.mean == 1.0


def test_per_image_path__models_named_like_paths_stay_in_the_folder(make_row, tmp_path):
    path = per_image_path(tmp_path, make_row("../runs/a:b", 0.5))
    assert path.parent == tmp_path
    assert path != per_image_path(tmp_path, make_row("..runsa:b", 0.5))
