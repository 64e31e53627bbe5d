"""The sentences at the top of the page, made from the numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cliptex.report.compare import Comparison
from cliptex.report.footnotes import UNLIKE
from cliptex.report.names import MODELS, Measure, is_control, model_name, number, told_apart
from cliptex.report.tables import interval_text
from cliptex.report.verdicts import KEPT_MARGIN, Rival, Verdict, Word

NAMED = 12
"""Measures that a sentence names; the others are in the tables below it."""


def headline(
    found: Sequence[Verdict],
    comparisons: Sequence[Comparison],
    *,
    ours: str,
    baseline: str,
    smoke: Sequence[str] = (),
) -> list[str]:
    """What `ours` gained over `baseline` and what it kept, in plain sentences.

    `found` are the verdicts on the tests of `comparisons`; what an expert learnt from has none and
    is counted. What is not like for like is marked. A run with reasons to be a `smoke` run claims
    nothing: its differences are given as they are.
    """
    us, them = model_name(ours), model_name(baseline)
    if not comparisons:
        return [
            *_smoke(smoke),
            f"There are no results of {us} and {them} on the same test and seed.",
        ]
    texts = _texts(found)
    if smoke:
        sentences = [*_smoke(smoke), *_listed("Differences, without a claim", found, texts)]
    else:
        sentences = _gains([v for v in found if v.dense], us, them, texts)
        sentences += _kept([v for v in found if not v.dense], them, texts)
        sentences += _unheld(found, ours)
    sentences += _leaks(comparisons)
    apart = list(dict.fromkeys(v.comparison.unlike for v in found if v.comparison.unlike))
    if apart:
        sentences.append(
            f"{UNLIKE} is not like for like, so the difference is not the encoders' alone "
            f"({them} / {us}): {'; '.join(apart)}."
        )
    return [*sentences, *_counting(found)]


def _smoke(reasons: Sequence[str]) -> list[str]:
    if not reasons:
        return []
    return [
        f"Smoke run ({'; '.join(reasons)}): it shows that the path works, not what the method "
        "gives."
    ]


def _gains(dense: Sequence[Verdict], us: str, them: str, texts: Mapping[Measure, str]) -> list[str]:
    if not dense:
        return []
    up = [v for v in dense if v.word == "better"]
    odd = sum(bool(v.comparison.unlike) for v in dense)
    care = f", {odd} of them not like for like" if odd else ""
    tests = f"{len(dense)} dense test{'s' if len(dense) > 1 else ''}{care}"
    if up:
        first = f"{us} improves on {them} in {len(up)} of {tests}."
    else:
        first = f"{us} shows no gain over {them} in any of {tests}."
    sentences = [first]
    labels: tuple[tuple[str, Word], ...] = (
        ("Better", "better"),
        ("Not shown, since a control does as well", "not shown"),
        ("No clear effect", "unclear"),
        ("Worse", "worse"),
        ("No interval, hence no claim", "no interval"),
    )
    for label, word in labels:
        sentences += _listed(label, _with(dense, word), texts)
    return sentences


def _kept(kept: Sequence[Verdict], them: str, texts: Mapping[Measure, str]) -> list[str]:
    margin = f"{100 * KEPT_MARGIN:g} % of {them}'s value"
    sentences = []
    labels: tuple[tuple[str, Word], ...] = (
        ("Improved", "better"),
        (f"Kept (any loss is below {margin})", "kept"),
        ("Not kept", "not kept"),
        ("Not shown, since a control does as well", "not shown"),
        (f"Not enough data to call kept or lost (a margin of {margin})", "not enough data"),
    )
    for label, word in labels:
        sentences += _listed(label, _with(kept, word), texts)
    return sentences


def _with(found: Sequence[Verdict], word: Word) -> list[Verdict]:
    return [v for v in found if v.word == word]


def _unheld(found: Sequence[Verdict], ours: str) -> list[str]:
    """What the claimed gains were not held against."""
    up = [v for v in found if v.word == "better"]
    bare = [v for v in up if v.measure.probe and not any(is_control(r.model) for r in v.rivals)]
    placebo = f"{ours}-placebo"
    dense = [v for v in up if v.dense]
    alone = [v for v in dense if all(r.model != placebo for r in v.rivals)]
    sentences = []
    if bare:
        sentences.append(
            f"No control was probed on {_of(bare, up)} that improve: what random weights or the "
            "mean answer score there is not known; probe the model with controls, too."
        )
    if alone and placebo in MODELS:
        sentences.append(
            f"No training with placebo labels was probed on {_of(alone, dense)} that improve: that "
            "the gain comes from what the labels say is not shown."
        )
    return sentences


def _of(part: Sequence[Verdict], whole: Sequence[Verdict]) -> str:
    dense = all(v.dense for v in whole)
    return f"{len(part)} of the {len(whole)} {'dense ' if dense else ''}tests"


def _leaks(comparisons: Sequence[Comparison]) -> list[str]:
    leaked = sum(c.leak for c in comparisons)
    if not leaked:
        return []
    return [
        f"{leaked} of {len(comparisons)} measures come from benchmarks that an expert learnt from "
        "(marked †): no direction is claimed for them."
    ]


def _counting(found: Sequence[Verdict]) -> list[str]:
    """What a test is, and what the intervals are over."""
    if not found:
        return []
    metrics = list(dict.fromkeys(v.measure.short for v in found))
    sentences = [
        "A test is a task, data set and probe, and counts once, by its primary metric "
        f"({', '.join(metrics)})."
    ]
    seeds = sorted({len(v.comparison.seeds) for v in found if v.comparison.over == "seeds"})
    if seeds:
        sentences.append(
            f"Means of {' or '.join(map(str, seeds))} seeds, paired; a change counts where its "
            "95 % interval leaves out zero."
        )
    if any(v.comparison.over == "images" for v in found):
        sentences.append(
            "Of one seed, the 95 % intervals are over the test images, paired: what another seed "
            "of training would change is not in them."
        )
    if any(not v.comparison.over for v in found):
        sentences.append(
            "One seed only and no scores per image: without an interval a difference shows nothing."
        )
    return sentences


def _texts(found: Sequence[Verdict]) -> dict[Measure, str]:
    """`depth AbsRel 0.45 → 0.41`; more is named where that does not tell all measures apart."""
    details = told_apart([v.measure for v in found])
    texts = {}
    for v, detail in zip(found, details, strict=True):
        c = v.comparison
        before, after = (number(value, c.measure.name) for value in (c.baseline, c.ours))
        text = f"{c.measure.short}{detail and f' ({detail})'} {before} → {after}"
        if v.word == "not enough data" and c.over:
            text += f" ({interval_text(c.measure, c.difference)})"
        if v.word == "not shown":
            text += f" ({'; '.join(_rival_text(r, after) for r in v.matched)})"
        texts[c.measure] = text + (f" {UNLIKE}" if c.unlike else "")
    return texts


def _rival_text(rival: Rival, after: str) -> str:
    """`random weights 69.1 against 68.4`; ours is left out where it was said just before."""
    name = rival.lead.measure.name
    theirs, ours = (number(value, name) for value in (rival.lead.baseline, rival.lead.ours))
    text = f"{rival.name} {theirs}" + (f" against {ours}" if ours != after else "")
    if rival.share == rival.share and 0 < rival.share < 1:
        text += f", {100 * rival.share:.0f} % of the gain"
    return text


def _listed(label: str, found: Sequence[Verdict], texts: Mapping[Measure, str]) -> list[str]:
    """The texts of at most NAMED, and how many more there are; nothing of none."""
    if not found:
        return []
    more = len(found) - NAMED
    named = ", ".join(texts[v.measure] for v in found[:NAMED])
    return [f"{label}: {named}" + (f" and {more} more." if more > 0 else ".")]
