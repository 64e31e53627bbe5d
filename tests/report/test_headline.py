from __future__ import annotations

from cliptex.report.compare import compare_all
from cliptex.report.headline import headline
from cliptex.report.verdicts import verdicts

PAIR = {"ours": "cliptex", "baseline": "clip-ft"}


def sentences(rows, **other) -> str:
    comparisons = compare_all(rows, "cliptex", "clip-ft")
    return "\n".join(headline(verdicts(rows, comparisons, **PAIR), comparisons, **PAIR, **other))


def seeds_of(make_row, model, values, **other):
    return [make_row(model, value, seed=seed, **other) for seed, value in enumerate(values)]


def test_gain_is_said_with_its_numbers(rows):
    text = sentences(rows)
    assert text.startswith("CLIPTeX improves on CLIP-FT in 2 of 2 dense tests.")
    assert "segmentation mIoU, things 22.0 → 27.0, depth AbsRel 0.400 → 0.320" in text
    assert "3 seeds" in text
    # the interval of [-2.5, 2.5] stays within 5 % of 56
    assert "Kept (any loss is below 5 % of CLIP-FT's value): zero-shot top-1 56.0 → 56.0." in text


def test_interval_with_zero_is_no_clear_effect(make_row):
    rows = seeds_of(make_row, "clip-ft", [0.4] * 3) + seeds_of(make_row, "cliptex", (0.1, 0.5, 0.3))
    text = sentences(rows)
    assert text.startswith("CLIPTeX shows no gain over CLIP-FT in any of 1 dense test.")
    assert "No clear effect: depth AbsRel" in text


def test_loss_is_said_plainly(make_row):
    rows = seeds_of(make_row, "clip-ft", [0.4] * 3)
    rows += seeds_of(make_row, "cliptex", (0.5, 0.51, 0.52))
    assert "Worse: depth AbsRel 0.400 → 0.510." in sentences(rows)


def test_one_seed_without_scores_per_image_claims_nothing(make_row):
    text = sentences([make_row("clip-ft", 0.4), make_row("cliptex", 0.3)])
    assert text.startswith("CLIPTeX shows no gain over CLIP-FT in any of 1 dense test.")
    assert "No interval, hence no claim: depth AbsRel 0.400 → 0.300." in text
    assert "One seed only and no scores per image" in text


def test_metrics_of_one_test_count_once(make_row):
    metrics = {"mean": "lower", "a11": "higher", "a30": "higher", "rmse": "lower"}
    rows = []
    for metric, better in metrics.items():
        about = {"task": "normals", "metric": metric, "better": better, "probe": "linear"}
        rows += seeds_of(make_row, "clip-ft", (30.0, 31.0, 32.0), **about)
        rows += seeds_of(make_row, "cliptex", (35.0, 36.0, 37.1), **about)
    text = sentences(rows)
    assert text.startswith("CLIPTeX improves on CLIP-FT in 1 of 1 dense test.")
    assert "(normals within 30°)" in text and "mean angle" not in text


def test_a_test_that_random_weights_pass_is_not_shown(make_row):
    # the numbers of DeepLabv3 on the playroom's normals
    about = {"task": "normals", "metric": "a30", "better": "higher", "probe": "deeplabv3"}
    rows = seeds_of(make_row, "clip-ft", (67.5, 67.3, 67.6), **about)
    rows += seeds_of(make_row, "cliptex", (68.4, 68.7, 69.0), **about)
    assert "improves on CLIP-FT in 1 of 1" in sentences(rows)
    rows += [make_row("random-init", 69.1, **about), make_row("pixels", 40.0, **about)]
    text = sentences(rows)
    assert text.startswith("CLIPTeX shows no gain over CLIP-FT in any of 1 dense test.")
    assert (
        "Not shown, since a control does as well: normals within 30° 67.5 → 68.7 "
        "(random weights 69.1 against 68.4)." in text
    )


def test_a_gain_that_a_placebo_gives_is_not_shown(make_row):
    rows = seeds_of(make_row, "clip-ft", (0.139, 0.138, 0.140))
    rows += seeds_of(make_row, "cliptex", (0.122, 0.121, 0.123))
    rows += seeds_of(make_row, "cliptex-placebo", (0.124, 0.123, 0.125))
    text = sentences(rows)  # ahead of it by exactly 0.002, yet 88 % of the gain is the placebo's
    assert "improves" not in text
    assert "0.139 → 0.122 (placebo labels 0.124, 88 % of the gain)." in text


def test_kept_is_relative_to_the_baseline(make_row):
    about = {"task": "retrieval", "better": "higher"}
    rows = []
    for metric, before, after in (
        ("text_r1", (2.4, 2.3, 2.5), (1.7, 2.4, 1.0)),  # most of it, though less than a point
        ("image_r1", (60.0, 61.0, 62.0), (59.2, 60.1, 61.3)),
    ):
        rows += seeds_of(make_row, "clip-ft", before, metric=metric, **about)
        rows += seeds_of(make_row, "cliptex", after, metric=metric, **about)
    text = sentences(rows)
    assert (
        "Kept (any loss is below 5 % of CLIP-FT's value): retrieval image R@1 61.0 → 60.2." in text
    )
    assert "Not kept" not in text
    assert "Not enough data to call kept or lost" in text and "text R@1 2.4 → 1.7 (−0.7 [" in text


def test_a_sure_loss_beyond_the_margin_is_not_kept(make_row):
    about = {"task": "zeroshot", "metric": "top1", "better": "higher"}
    rows = seeds_of(make_row, "clip-ft", (50.0, 51.0, 52.0), **about)
    rows += seeds_of(make_row, "cliptex", (40.0, 41.1, 42.0), **about)
    assert "Not kept: zero-shot top-1 51.0 → 41.0." in sentences(rows)


def test_an_improvement_is_no_mere_keeping(make_row):
    about = {"task": "classification", "metric": "top1", "better": "higher", "probe": "linear"}
    rows = seeds_of(make_row, "clip-ft", (37.7, 38.0, 37.5), **about)
    rows += seeds_of(make_row, "cliptex", (98.0, 98.2, 97.9), **about)
    text = sentences(rows)
    assert "Improved: linear classification top-1 37.7 → 98.0." in text and "Kept" not in text
    rows += seeds_of(make_row, "pixels", (98.1, 98.2, 98.0), **about)
    assert "Not shown, since a control does as well: linear classification" in sentences(rows)


def test_what_gains_were_not_held_against_is_said(make_row):
    about = {"probe": "linear"}
    rows = seeds_of(make_row, "clip-ft", (0.4, 0.4, 0.4), **about)
    rows += seeds_of(make_row, "cliptex", (0.3, 0.31, 0.29), **about)
    text = sentences(rows)
    assert "No control was probed on 1 of the 1 dense tests that improve" in text
    assert "No training with placebo labels was probed on 1 of the 1" in text
    rows += seeds_of(make_row, "random-init", (0.5, 0.5, 0.5), **about)
    rows += seeds_of(make_row, "cliptex-placebo", (0.4, 0.4, 0.4), **about)
    assert "No control" not in sentences(rows) and "No training" not in sentences(rows)


def test_a_smoke_run_claims_nothing(rows):
    text = sentences(rows, smoke=["trainings of 30 steps", "tests of at most 120 images"])
    assert text.startswith("Smoke run (trainings of 30 steps; tests of at most 120 images): ")
    assert "Differences, without a claim: segmentation mIoU, things 22.0 → 27.0" in text
    assert "improves" not in text and "Better" not in text


def test_leaked_benchmarks_claim_nothing(make_row):
    rows = [make_row("clip-ft", 0.4, leak=True), make_row("cliptex", 0.1)]
    text = sentences(rows)
    assert "improves" not in text and "Better" not in text
    assert "1 of 1 measures" in text and "no direction is claimed" in text


def test_what_is_not_like_for_like_is_said(make_row):
    rows = [
        row
        for dataset, epochs in (("x", 300), ("y", 12))
        for model, values, e in (
            ("clip-ft", (0.4, 0.4, 0.4), 12),
            ("cliptex", (0.3, 0.31, 0.29), epochs),
        )
        for row in seeds_of(make_row, model, values, dataset=dataset, protocol={"epochs": e})
    ]
    text = sentences(rows)
    assert "in 2 of 2 dense tests, 1 of them not like for like." in text
    assert "(x) 0.400 → 0.300 ≠, depth AbsRel (y) 0.400 → 0.300.\n" in text
    assert "(CLIP-FT / CLIPTeX): epochs 12 / 300." in text
    alike = [row for row in rows if row.dataset == "y"]
    assert "≠" not in sentences(alike) and "like" not in sentences(alike)


def test_seeds_are_counted_of_every_test(make_row):
    rows = [
        row
        for dataset, count in (("x", 3), ("y", 2))
        for model in ("clip-ft", "cliptex")
        for row in seeds_of(make_row, model, [0.4] * count, dataset=dataset)
    ]
    assert "Means of 2 or 3 seeds" in sentences(rows)


def test_tests_are_told_apart_from_all_others_by_what_is_their_own(make_row):
    def pair(recipe, better):
        protocol = {"recipe": recipe, "resolution": 64, "test_split": "val"}
        rows = seeds_of(make_row, "clip-ft", [0.4] * 3, protocol=protocol)
        values = [better, better + 0.01, better - 0.01]
        return rows + seeds_of(make_row, "cliptex", values, protocol=protocol)

    text = sentences(pair("fast", 0.3) + pair("paper", 0.5))
    assert "Better: depth AbsRel (fast recipe) 0.400 → 0.300." in text
    assert "Worse: depth AbsRel (paper recipe) 0.400 → 0.500." in text


def test_nothing_to_compare_is_said(make_row):
    assert sentences([make_row("clip-ft", 0.4)]).startswith("There are no results")


def test_probes_are_told_apart_and_long_lists_are_cut(make_row):
    rows = [
        make_row(model, value, probe=probe, dataset=f"set{i}")
        for model, value in (("clip-ft", 0.4), ("cliptex", 0.3))
        for probe in ("linear", "deeplabv3")
        for i in range(8)
    ]
    text = sentences(rows)
    assert "depth AbsRel (set0, linear) 0.400 → 0.300" in text
    assert "(set3, DeepLabv3)" in text and "and 4 more." in text
