"""Differences between two models, paired over seeds: of scores, and of IoU per class (Fig. 2b)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cliptex.report.comparability import CLASS_IOU, CLASS_SUPPORT, unlike
from cliptex.report.names import Measure, measures_in_order
from cliptex.results import Result

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with a 95 % interval; `low` and `high` are None where one value has no spread."""

    mean: float
    low: float | None
    high: float | None

    @property
    def above_zero(self) -> bool:
        """True where the whole interval lies above zero (never with a single value)."""
        return self.low is not None and self.low > 0

    @property
    def below_zero(self) -> bool:
        """True where the whole interval lies below zero (never with a single value)."""
        return self.high is not None and self.high < 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`ours` against `baseline` on one measure, paired over the seeds that both have.

    `difference` is ours - baseline in the metric's own unit; `improvement` is the same with the
    sign turned where lower is better; `relative` is the improvement in % of the baseline's value
    (mean of the per-seed ratios). `unlike` says in what the two are not like for like, "" where
    they are (see `cliptex.report.comparability`). `over` says what the intervals are over: "seeds",
    "images" (see `cliptex.report.verdicts.with_images`), or "" where there are none.
    """

    measure: Measure
    seeds: tuple[int, ...]
    ours: float
    baseline: float
    difference: Interval
    improvement: Interval
    relative: Interval
    leak: bool
    unlike: str
    over: str


def scaled(interval: Interval, factor: float) -> Interval:
    """`interval` of values times `factor`; its ends change places where that is negative."""
    ends = [None if end is None else factor * end for end in (interval.low, interval.high)]
    low, high = ends if factor >= 0 else ends[::-1]
    return Interval(factor * interval.mean, low, high)


def t_interval(values: Sequence[float]) -> Interval:
    """Mean and two-sided 95 % Student interval: mean ± t(0.975, n-1) · s / √n, s with n - 1."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(data.mean())
    if data.size == 1:
        return Interval(mean, None, None)
    from scipy.stats import t  # here, since it alone takes half of this package's import time

    half = t.ppf(0.5 + CONFIDENCE / 2, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size)
    return Interval(mean, mean - float(half), mean + float(half))


def rows_of(rows: Sequence[Result], measure: Measure, model: str) -> list[Result]:
    """The rows of `model` on `measure`."""
    return [row for row in rows if row.model == model and Measure.of(row) == measure]


def values_by_seed(rows: Sequence[Result], measure: Measure, model: str) -> dict[int, float]:
    """Seed -> value. A row may be repeated; ValueError where two say different things."""
    found: dict[int, Result] = {}
    for row in rows_of(rows, measure, model):
        first = found.setdefault(row.seed, row)
        if not np.array_equal(first.value, row.value, equal_nan=True):
            raise ValueError(_clash(first, row))
    return {seed: row.value for seed, row in found.items()}


def _clash(first: Result, second: Result) -> str:
    keys = [f"protocol.{k}" for k in sorted({*first.protocol, *second.protocol})]
    values = [
        {"checkpoint": r.checkpoint} | {f"protocol.{k}": v for k, v in r.protocol.items()}
        for r in (first, second)
    ]
    differ = [k for k in ("checkpoint", *keys) if values[0].get(k) != values[1].get(k)]
    measure = Measure.of(first)
    return (
        f"results.jsonl: {first.model}, seed {first.seed}, has two values of {measure.short} on "
        f"{measure.dataset} ({measure.test}): {first.value:.6g} ({first.time}) and "
        f"{second.value:.6g} ({second.time}); {', '.join(differ) or 'nothing else'} differ: remove "
        "one row, or give its model another name"
    )


def compare(
    rows: Sequence[Result], measure: Measure, ours: str, baseline: str
) -> Comparison | None:
    """`ours` against `baseline`, or None where they share no seed."""
    mine, other = (values_by_seed(rows, measure, model) for model in (ours, baseline))
    seeds = tuple(sorted(mine.keys() & other.keys()))
    if not seeds:
        return None
    a = np.array([mine[seed] for seed in seeds])
    b = np.array([other[seed] for seed in seeds])
    improvement = measure.sign * (a - b)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(b != 0, 100 * improvement / np.abs(b), np.nan)
    pair = [row for m in (baseline, ours) for row in rows_of(rows, measure, m)]
    return Comparison(
        measure=measure,
        seeds=seeds,
        ours=float(a.mean()),
        baseline=float(b.mean()),
        difference=t_interval((a - b).tolist()),
        improvement=t_interval(improvement.tolist()),
        relative=t_interval(relative.tolist()),
        leak=any(row.leak for row in pair),
        unlike=unlike([row for row in pair if row.seed in seeds]),
        over="seeds" if len(seeds) > 1 else "",
    )


def compare_all(rows: Sequence[Result], ours: str, baseline: str) -> list[Comparison]:
    """Every measure that both models have, in the order of the report."""
    found = (compare(rows, m, ours, baseline) for m in measures_in_order(list(rows)))
    return [comparison for comparison in found if comparison is not None]


def share(rows: Sequence[Result], measure: Measure, *, part: str, whole: str, base: str) -> float:
    """(part - base) / (whole - base) of the means over the seeds that all three models have.

    With part = cliptex and whole = cliptex-perfect: how much of what perfect labels give is
    reached. NaN where a model is absent, or `whole` gains nothing, since a share then says nothing.
    """
    found = [values_by_seed(rows, measure, model) for model in (part, whole, base)]
    seeds = found[0].keys() & found[1].keys() & found[2].keys()
    if not seeds:
        return float("nan")
    p, w, b = (float(np.mean([values[seed] for seed in seeds])) for values in found)
    if measure.sign * (w - b) <= 0:
        return float("nan")
    return (p - b) / (w - b)


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
