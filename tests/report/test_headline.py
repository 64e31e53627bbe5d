from __future__ import annotations

from cliptex.report.compare import compare_all
from cliptex.report.headline import headline


def sentences(rows) -> str:
    comparisons = compare_all(rows, "cliptex", "clip-ft")
    return "\n".join(headline(comparisons, ours="cliptex", baseline="clip-ft"))


def test_gain_is_said_with_its_numbers(rows):
    text = sentences(rows)
    assert text.startswith("CLIPTeX improves on CLIP-FT in 2 of 2 dense measures.")
    assert "segmentation mIoU, things 22.0 → 27.0, depth AbsRel 0.400 → 0.320" in text
    assert "Kept (at most 1.5 below CLIP-FT): zero-shot top-1 56.0 → 56.0." in text
    assert "3 seeds" in text


def test_interval_with_zero_is_no_clear_effect(make_row):
    rows = [make_row("clip-ft", 0.4, seed=s) for s in range(3)]
    rows += [make_row("cliptex", v, seed=s) for s, v in enumerate((0.1, 0.5, 0.3))]
    text = sentences(rows)
    assert text.startswith("CLIPTeX shows no gain over CLIP-FT in any of 1 dense measures.")
    assert "No clear effect: depth AbsRel" in text


def test_loss_is_said_plainly(make_row):
    rows = [make_row("clip-ft", 0.4, seed=s) for s in range(3)]
    rows += [make_row("cliptex", 0.5 + s / 100, seed=s) for s in range(3)]
    assert "Worse: depth AbsRel 0.400 → 0.510." in sentences(rows)


def test_one_seed_proves_nothing(make_row):
    text = sentences([make_row("clip-ft", 0.4), make_row("cliptex", 0.3)])
    assert "One seed only" in text


def test_not_kept_beyond_the_margin(make_row):
    other = {"task": "zeroshot", "metric": "top1", "better": "higher"}
    rows = [make_row("clip-ft", 50.0, **other), make_row("cliptex", 48.4, **other)]
    assert "Not kept: zero-shot top-1 50.0 → 48.4." in sentences(rows)


def test_leaked_benchmarks_claim_nothing(make_row):
    rows = [make_row("clip-ft", 0.4, leak=True), make_row("cliptex", 0.1)]
    text = sentences(rows)
    assert "improves" not in text and "Better" not in text
    assert "1 of 1 measures" in text and "no direction is claimed" in text


def test_what_is_not_like_for_like_is_said(make_row):
    rows = [
        make_row(model, value, dataset=dataset, protocol={"epochs": epochs})
        for dataset, model, value, epochs in (
            ("x", "clip-ft", 0.4, 12),
            ("x", "cliptex", 0.3, 300),
            ("y", "clip-ft", 0.4, 12),
            ("y", "cliptex", 0.3, 12),
        )
    ]
    text = sentences(rows)
    assert "in 2 of 2 dense measures, 1 of them not like for like." in text
    assert "(x) 0.400 → 0.300 ≠, depth AbsRel (y) 0.400 → 0.300.\n" in text
    assert "(CLIP-FT / CLIPTeX): epochs 12 / 300." in text
    assert "≠" not in sentences(rows[2:]) and "like" not in sentences(rows[2:])


def test_seeds_are_counted_of_every_measure(make_row):
    rows = [
        make_row(m, 0.4, seed=s, dataset=d)
        for d, seeds in (("x", 3), ("y", 2))
        for s in range(seeds)
        for m in ("clip-ft", "cliptex")
    ]
    assert "Means of 2 or 3 seeds" in sentences(rows)


def test_measures_are_told_apart_from_all_others_by_what_is_their_own(make_row):
    def pair(recipe, better):
        protocol = {"recipe": recipe, "resolution": 64, "test_split": "val"}
        return [
            make_row(m, v, protocol=protocol) for m, v in (("clip-ft", 0.4), ("cliptex", better))
        ]

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
