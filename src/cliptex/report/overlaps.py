"""Near-duplicates between what was trained on and what is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cliptex.results import Result

OVERLAP = "overlap"
"""The metric of such rows; they measure data, not a model."""


@dataclass(frozen=True)
class OverlapRow:
    """`value` (text) of the `n` images of `dataset` have a near-duplicate in `training`."""

    dataset: str
    training: str
    value: str
    n: int


def overlap_rows(rows: Sequence[Result]) -> list[OverlapRow]:
    """One per pair of sets; the last where a pair was compared again."""
    found = {
        (row.dataset, row.model): OverlapRow(row.dataset, row.model, _text(row), row.n)
        for row in rows
        if row.metric == OVERLAP
    }
    return list(found.values())


def _text(row: Result) -> str:
    """`5 (12.50 %)`."""
    return f"{round(row.n * row.value / 100)} ({row.value:.2f} %)"
