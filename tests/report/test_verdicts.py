"""One verdict a test, and what it is held against."""

from __future__ import annotations

import numpy as np
import pytest

from cliptex.per_image import save_per_image
from cliptex.report.bootstrap import compare_images
from cliptex.report.comparability import controls_apart
from cliptex.report.compare import Comparison, Interval, compare_all
from cliptex.report.names import Measure
from cliptex.report.verdicts import KEPT_MARGIN, Verdict, primary_measures, verdicts, with_images
from cliptex.results import CONTROL_OF

PAIR = {"ours": "cliptex", "baseline": "clip-ft"}


def found(rows, **other):
    return verdicts(rows, compare_all(rows, "cliptex", "clip-ft"), **PAIR, **other)


def test_primary_measures__one_for_each_test(make_row):
    def row(metric, **other):
        return make_row("m", 1.0, metric=metric, **other)

    rules = [{"protocol": {"name": name, "recipe": "fast"}} for name in ("lasinger", "eigen")]
    rows = [row("depth_rmse", **rules[0]), row("absrel", **rules[0]), row("absrel", **rules[1])]
    rows += [row("absrel", probe="pspnet"), row("absrel", n=5), row("odd", task="else")]
    rows += [row(metric, task="detection") for metric in ("ap50_box", "ap_box", "ap_mask")]
    rows += [row(f"{way}_r{k}", task="retrieval") for way in ("text", "image") for k in (5, 1)]
    measures = primary_measures(rows, {Measure.of(r) for r in rows})
    told = [(m.metric, m.probe, m.n, m.variant) for m in measures]
    assert told == [
        ("absrel", None, 9, "fast recipe, lasinger"),  # the other rule scores the same predictions
        ("absrel", "pspnet", 9, ""),
        ("absrel", None, 5, ""),
        ("odd", None, 9, ""),
        ("ap_box", None, 9, ""),
        ("text_r1", None, 9, ""),
        ("image_r1", None, 9, ""),
    ]


@pytest.mark.parametrize(
    ("task", "low", "mean", "high", "word"),
    [
        ("depth", 0.1, 1.0, 2.0, "better"),
        ("depth", -0.1, 1.0, 2.0, "unclear"),
        ("depth", -2.0, -1.0, -0.1, "worse"),
        ("depth", None, 1.0, None, "no interval"),
        ("zeroshot", 0.1, 1.0, 2.0, "better"),
        ("zeroshot", -0.99, 0.0, 1.0, "kept"),  # the margin is 5 % of 20
        ("zeroshot", -0.9, -0.5, -0.1, "kept"),  # a sure loss, but a small one
        ("zeroshot", -1.01, 0.0, 1.0, "not enough data"),
        ("zeroshot", -2.0, -1.0, -0.1, "not kept"),
        ("zeroshot", None, 5.0, None, "not enough data"),
    ],
)
def test_words(task, low, mean, high, word):
    interval = Interval(mean, low, high)
    measure = Measure(task, "d", None, "x", "higher", 9)
    comparison = Comparison(
        measure=measure,
        seeds=(0,),
        ours=20.0 + mean,
        baseline=20.0,
        difference=interval,
        improvement=interval,
        relative=interval,
        leak=False,
        unlike="",
        over="",
    )
    assert KEPT_MARGIN == 0.05
    assert Verdict(comparison=comparison, rivals=()).word == word


def test_one_seed_has_intervals_over_the_same_images(make_row, tmp_path):
    about = {"metric": "x", "better": "higher", "n": 40}
    hard = np.random.default_rng(0).normal(50, 30, 40)  # what both models find hard
    values = {"clip-ft": hard, "cliptex": hard + 2 + np.arange(40) % 2, "pixels": hard - 9}
    values["random-init"] = hard + 2.5 + np.arange(40) % 3 - 1
    rows = [make_row(model, float(v.mean()), **about) for model, v in values.items()]
    for row in rows:
        save_per_image(tmp_path, row, values[row.model])
    comparisons = compare_all(rows, "cliptex", "clip-ft")
    assert comparisons[0].over == "" and comparisons[0].improvement.low is None
    over_images = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    (comparison,) = with_images(comparisons, over_images)
    gain = comparison.improvement
    assert comparison.over == "images" and gain.mean == pytest.approx(2.5)
    assert gain.low is not None and 2.2 < gain.low < 2.5  # unpaired it would be minus ten
    assert comparison.relative.mean == pytest.approx(100 * 2.5 / hard.mean())
    (verdict,) = verdicts(rows, [comparison], **PAIR, per_image=[tmp_path])
    assert {r.model: r.lead.over for r in verdict.rivals} == {
        "pixels": "images",
        "random-init": "images",
    }
    assert verdict.word == "not shown" and [r.model for r in verdict.matched] == ["random-init"]


def test_intervals_over_images_turn_with_the_metric_s_sign(make_row, tmp_path):
    values = {"clip-ft": np.linspace(0.4, 0.5, 20), "cliptex": np.linspace(0.3, 0.42, 20)}
    rows = [make_row(model, float(v.mean()), n=20) for model, v in values.items()]
    for row in rows:
        save_per_image(tmp_path, row, values[row.model])
    over_images = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    (c,) = with_images(compare_all(rows, "cliptex", "clip-ft"), over_images)
    assert c.improvement.low is not None and c.improvement.high is not None
    assert 0 < c.improvement.low < c.improvement.mean < c.improvement.high
    assert c.difference.low == -c.improvement.high


def test_a_further_control_finds_its_scores_per_image(make_row, tmp_path):
    rows = [
        make_row(model, value, protocol={"encoder_stride": stride}, n=4)
        for model, value, stride in (("cliptex", 0.1, 8), ("pixels", 0.2, 16), ("pixels", 0.3, 8))
    ]
    save_per_image(tmp_path, rows[2], np.full(4, 0.3))  # the later of the two was kept
    save_per_image(tmp_path, rows[0], np.full(4, 0.1))
    named = controls_apart(rows)
    assert [row.model for row in named] == ["cliptex", "pixels", "pixels (2)"]
    (first,) = compare_images(named, [tmp_path], "cliptex", "pixels")
    assert first.difference is None  # these are not its values
    (second,) = compare_images(named, [tmp_path], "cliptex", "pixels (2)")
    assert second.difference is not None and second.difference.mean == pytest.approx(-0.2)


def test_controls_count_for_the_models_that_they_were_made_for(make_row):
    def control(owner):
        protocol = {CONTROL_OF: {"model": owner, "checkpoint": "x"}} if owner else {}
        return make_row("random-init", 0.1, protocol=protocol)

    rows = [make_row("clip-ft", 0.4), make_row("cliptex", 0.3)]
    for owner, counts in (("", 1), ("clip-ft", 1), ("cliptex", 1), ("clip", 1), ("dino", 0)):
        (verdict,) = found([*rows, control(owner)], start="clip")
        assert len(verdict.rivals) == counts, owner


def test_one_control_of_two_models_is_one_control(make_row):
    rows = [
        make_row("random-init", 0.1, protocol={CONTROL_OF: {"model": model, "checkpoint": model}})
        for model in ("clip-ft", "cliptex")
    ]
    assert [row.model for row in controls_apart(rows)] == ["random-init"] * 2
