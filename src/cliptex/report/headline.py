"""The sentences at the top of the page, made from the numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cliptex.report.compare import Comparison
from cliptex.report.marks import UNLIKE
from cliptex.report.names import DENSE_TASKS, Measure, model_name, number, told_apart

KEPT_MARGIN = 1.5
"""Points below the baseline up to which a percentage counts as kept."""

NAMED = 12
"""Measures that a sentence names; the others are in the tables below it."""


def headline(comparisons: Sequence[Comparison], *, ours: str, baseline: str) -> list[str]:
    """What `ours` gained over `baseline` and what it kept, in plain sentences.

    With several seeds a gain is claimed where its 95 % interval lies above zero. One seed has no
    interval: its differences are given, and that they prove nothing is said. Measures that an
    expert learnt from are shown below but claim nothing. What is not like for like is marked.
    """
    us, them = model_name(ours), model_name(baseline)
    if not comparisons:
        return [f"There are no results of {us} and {them} on the same test and seed."]
    clean = [c for c in comparisons if not c.leak]
    dense = [c for c in clean if c.measure.task in DENSE_TASKS]
    kept = [c for c in clean if c.measure.task not in DENSE_TASKS]
    texts = _texts(comparisons)
    sentences = [*_gains(dense, us, them, texts), *_kept(kept, them, texts)]
    if any(c.leak for c in comparisons):
        sentences.append(
            f"{len(comparisons) - len(clean)} of {len(comparisons)} measures come from benchmarks "
            "that an expert learnt from (marked †): no direction is claimed for them."
        )
    apart = list(dict.fromkeys(c.unlike for c in comparisons if c.unlike))
    if apart:
        sentences.append(
            f"{UNLIKE} is not like for like, so the difference is not the encoders' alone "
            f"({them} / {us}): {'; '.join(apart)}."
        )
    counts = sorted({len(c.seeds) for c in comparisons})
    if counts[-1] > 1:
        sentences.append(
            f"Means of {' or '.join(map(str, counts))} seeds, paired; a change counts where its "
            "95 % interval leaves out zero."
        )
    else:
        sentences.append("One seed only, so there is no interval: small differences mean nothing.")
    return sentences


def _gains(
    dense: Sequence[Comparison], us: str, them: str, texts: Mapping[Measure, str]
) -> list[str]:
    if not dense:
        return []
    up = [c for c in dense if _rises(c)]
    down = [c for c in dense if _falls(c)]
    flat = [c for c in dense if c not in up and c not in down]
    odd = sum(bool(c.unlike) for c in dense)
    care = f", {odd} of them not like for like" if odd else ""
    if up:
        first = f"{us} improves on {them} in {len(up)} of {len(dense)} dense measures{care}."
    else:
        first = f"{us} shows no gain over {them} in any of {len(dense)} dense measures{care}."
    parts = (("Better", up), ("No clear effect", flat), ("Worse", down))
    return [first] + [f"{word}: {_changes(found, texts)}." for word, found in parts if found]


def _kept(kept: Sequence[Comparison], them: str, texts: Mapping[Measure, str]) -> list[str]:
    lost = [c for c in kept if c.improvement.mean < -KEPT_MARGIN]
    held = [c for c in kept if c not in lost]
    sentences = []
    if held:
        sentences.append(f"Kept (at most {KEPT_MARGIN} below {them}): {_changes(held, texts)}.")
    if lost:
        sentences.append(f"Not kept: {_changes(lost, texts)}.")
    return sentences


def _rises(c: Comparison) -> bool:
    return c.improvement.above_zero or (c.improvement.low is None and c.improvement.mean > 0)


def _falls(c: Comparison) -> bool:
    return c.improvement.below_zero or (c.improvement.high is None and c.improvement.mean < 0)


def _texts(comparisons: Sequence[Comparison]) -> dict[Measure, str]:
    """`depth AbsRel 0.45 → 0.41`; more is named where that does not tell all measures apart."""
    details = told_apart([c.measure for c in comparisons])
    texts = {}
    for c, detail in zip(comparisons, details, strict=True):
        before, after = (number(value, c.measure.name) for value in (c.baseline, c.ours))
        sign = f" {UNLIKE}" if c.unlike else ""
        texts[c.measure] = f"{c.measure.short}{detail and f' ({detail})'} {before} → {after}{sign}"
    return texts


def _changes(comparisons: Sequence[Comparison], texts: Mapping[Measure, str]) -> str:
    """The texts of at most NAMED, and how many more there are."""
    parts = [texts[c.measure] for c in comparisons[:NAMED]]
    more = len(comparisons) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")
