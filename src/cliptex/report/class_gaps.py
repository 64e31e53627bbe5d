"""IoU per class of one model minus another's (the paper's Fig. 2b), with each class's support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cliptex.report.alike import CLASS_IOU, CLASS_SUPPORT, unlike
from cliptex.report.names import Measure
from cliptex.results import Result


@dataclass(frozen=True, kw_only=True)
class ClassGap:
    """`gap` in points of IoU, mean over seeds; `support`: (pixels, images), None where unknown."""

    name: str
    gap: float
    support: tuple[int, int] | None

    @property
    def label(self) -> str:
        """`chair · 34 images, 1.2 M px`."""
        if self.support is None:
            return self.name
        pixels, images = self.support
        return f"{self.name} · {images:,} image{'s' if images != 1 else ''}, {_short(pixels)} px"


@dataclass(frozen=True, kw_only=True)
class GapsOfTest:
    """The gaps of one probe on one data set, largest first, over the `seeds` of both models.

    `n` counts the test images; `unlike` says in what the two models are not like for like.
    """

    dataset: str
    test: str
    n: int
    seeds: tuple[int, ...]
    gaps: tuple[ClassGap, ...]
    unlike: str


def class_gaps(rows: Sequence[Result], ours: str, baseline: str) -> list[GapsOfTest]:
    """Of every test whose rows of both models carry IoU per class on a common seed."""
    tests: dict[tuple[str, str, int], dict[str, dict[int, Result]]] = {}
    for row in rows:
        if row.model in (ours, baseline) and isinstance(row.protocol.get(CLASS_IOU), dict):
            models = tests.setdefault((row.dataset, Measure.of(row).test, row.n), {})
            models.setdefault(row.model, {}).setdefault(row.seed, row)
    found = []
    for (dataset, test, n), models in tests.items():
        mine, other = models.get(ours, {}), models.get(baseline, {})
        seeds = tuple(sorted(mine.keys() & other.keys()))
        gaps = _gaps([(mine[seed], other[seed]) for seed in seeds])
        differs = unlike([of[seed] for of in (other, mine) for seed in seeds])
        if gaps:
            about = {"dataset": dataset, "test": test, "n": n, "seeds": seeds}
            found.append(GapsOfTest(**about, gaps=gaps, unlike=differs))
    return found


def _gaps(pairs: Sequence[tuple[Result, Result]]) -> tuple[ClassGap, ...]:
    """Gaps of the classes that all rows have a value of."""
    if not pairs:
        return ()
    values = [(_values(mine), _values(other)) for mine, other in pairs]
    names = [name for name in values[0][0] if all(name in a and name in b for a, b in values)]
    support = pairs[0][0].protocol.get(CLASS_SUPPORT)
    gaps = [
        ClassGap(
            name=name,
            gap=float(np.mean([a[name] - b[name] for a, b in values])),
            support=tuple(support[name]) if isinstance(support, dict) else None,
        )
        for name in names
    ]
    return tuple(sorted(gaps, key=lambda gap: -gap.gap))


def _values(row: Result) -> Mapping[str, float]:
    per_class = row.protocol[CLASS_IOU]
    assert isinstance(per_class, dict)
    return {str(name): float(value) for name, value in per_class.items() if value is not None}


def _short(count: int) -> str:
    """`950`, `3.4 k`, `1.2 M`."""
    for size, unit in ((10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
