"""Signs on a number that say why it should be read with care."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cliptex.report.names import is_control
from cliptex.results import TIED, Result

Mark = tuple[str, str, Callable[[Result], bool]]


def _random(row: Result) -> bool:
    return row.checkpoint == "random" and not is_control(row.model)


def _tied(row: Result) -> bool:
    return any(row.protocol.get(key) for key in TIED)


def _diverged(row: Result) -> bool:
    return row.protocol.get("diverged_at_step") is not None


MARKS: tuple[Mark, ...] = (
    ("†", "an expert learnt from this benchmark: no direction is claimed", lambda row: row.leak),
    (
        "‡",
        "the chosen learning rate is the smallest or largest that was tried",
        lambda row: bool(row.protocol.get("lr_at_grid_edge")),
    ),
    ("§", "the model has random weights", _random),
    ("¶", "the training diverged", _diverged),
    (
        "∥",
        "right answers tie with wrong ones in some queries (how many, the protocol says), which "
        "count by expectation over random orders",
        _tied,
    ),
)
"""Sign, its meaning, and which rows bear it."""

UNLIKE = "≠"
"""Follows what is compared though it is not like for like (see `cliptex.report.comparability`)."""


def marks_of(rows: Sequence[Result]) -> str:
    """The signs that at least one of `rows` bears: `†‡`."""
    return "".join(sign for sign, _, bears in MARKS if any(bears(row) for row in rows))


def legend(rows: Sequence[Result]) -> list[str]:
    """`† an expert learnt …` of every sign that `rows` bear."""
    return [f"{sign} {meaning}" for sign, meaning, bears in MARKS if any(bears(r) for r in rows)]
