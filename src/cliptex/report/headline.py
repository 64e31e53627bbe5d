"""The sentences at the top of the page, made from the numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

from cliptex.report.compare import Comparison
from cliptex.report.names import DENSE_TASKS, model_name, number, told_apart

KEPT_MARGIN = 1.5
"""Points below the baseline up to which a percentage counts as kept."""

NAMED = 12
"""Measures that a sentence names; the others are in the tables below it."""


def headline(comparisons: Sequence[Comparison], *, ours: str, baseline: str) -> list[str]:
    """What `ours` gained over `baseline` and what it kept, in plain sentences.

    With several seeds a gain is claimed where its 95 % interval lies above zero. One seed has no
    interval: its differences are given, and that they prove nothing is said. Measures that an
    expert learnt from are shown below but claim nothing.
    """
    us, them = model_name(ours), model_name(baseline)
    if not comparisons:
        return [f"There are no results of {us} and {them} on the same measure and seed."]
    clean = [c for c in comparisons if not c.leak]
    dense = [c for c in clean if c.measure.task in DENSE_TASKS]
    kept = [c for c in clean if c.measure.task not in DENSE_TASKS]
    sentences = [*_gains(dense, us, them), *_kept(kept, us, them)]
    if any(c.leak for c in comparisons):
        sentences.append(
            f"{len(comparisons) - len(clean)} of {len(comparisons)} measures come from benchmarks "
            "that an expert learnt from (marked †): no direction is claimed for them."
        )
    seeds = max(len(c.seeds) for c in comparisons)
    if seeds > 1:
        sentences.append(
            f"Means of {seeds} seeds, paired; a change counts where its 95 % interval "
            "leaves out zero."
        )
    else:
        sentences.append("One seed only, so there is no interval: small differences mean nothing.")
    return sentences


def _gains(dense: Sequence[Comparison], us: str, them: str) -> list[str]:
    if not dense:
        return []
    up = [c for c in dense if _rises(c)]
    down = [c for c in dense if _falls(c)]
    flat = [c for c in dense if c not in up and c not in down]
    if up:
        first = f"{us} improves on {them} in {len(up)} of {len(dense)} dense measures."
    else:
        first = f"{us} shows no gain over {them} in any of {len(dense)} dense measures."
    parts = (("Better", up), ("No clear effect", flat), ("Worse", down))
    return [first] + [f"{word}: {_changes(found)}." for word, found in parts if found]


def _kept(kept: Sequence[Comparison], us: str, them: str) -> list[str]:
    lost = [c for c in kept if c.improvement.mean < -KEPT_MARGIN]
    held = [c for c in kept if c not in lost]
    sentences = []
    if held:
        sentences.append(f"Kept (at most {KEPT_MARGIN} below {them}): {_changes(held)}.")
    if lost:
        sentences.append(f"Not kept: {_changes(lost)}.")
    return sentences


def _rises(c: Comparison) -> bool:
    return c.improvement.above_zero or (c.improvement.low is None and c.improvement.mean > 0)


def _falls(c: Comparison) -> bool:
    return c.improvement.below_zero or (c.improvement.high is None and c.improvement.mean < 0)


def _changes(comparisons: Sequence[Comparison]) -> str:
    """`depth AbsRel 0.45 → 0.41, …`; more is named where that does not tell measures apart."""
    details = told_apart([c.measure for c in comparisons])
    parts = []
    for c, detail in zip(comparisons[:NAMED], details, strict=False):
        before, after = (number(value, c.measure.name) for value in (c.baseline, c.ours))
        parts.append(f"{c.measure.short}{detail and f' ({detail})'} {before} → {after}")
    more = len(comparisons) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")
