"""Differences between two models: paired over seeds, or paired over test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliptex.per_image import per_image_path
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
    (mean of the per-seed ratios).
    """

    measure: Measure
    seeds: tuple[int, ...]
    ours: float
    baseline: float
    difference: Interval
    improvement: Interval
    relative: Interval
    leak: bool


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


def values_by_seed(rows: Sequence[Result], measure: Measure, model: str) -> dict[int, float]:
    """Seed -> value; where a run was repeated the last row counts."""
    return {r.seed: r.value for r in rows if r.model == model and Measure.of(r) == measure}


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
    pair = (ours, baseline)
    return Comparison(
        measure=measure,
        seeds=seeds,
        ours=float(a.mean()),
        baseline=float(b.mean()),
        difference=t_interval((a - b).tolist()),
        improvement=t_interval(improvement.tolist()),
        relative=t_interval(relative.tolist()),
        leak=any(r.leak for r in rows if r.model in pair and Measure.of(r) == measure),
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


def mean_of_values(sums: np.ndarray, count: int) -> np.ndarray:
    """Mean per-image value: `sums` (draws,) of per-image values (N,)."""
    return sums / count


def mean_iou(sums: np.ndarray, count: int) -> np.ndarray:
    """mIoU in % of `sums` (draws, C, 2): intersection and union per class; absent classes skip."""
    del count  # a ratio of sums does not need it
    union = sums[..., 1]
    iou = np.divide(sums[..., 0], union, out=np.full(union.shape, np.nan), where=union > 0)
    return 100 * np.nanmean(iou, axis=-1)


def paired_bootstrap(
    ours: np.ndarray,
    baseline: np.ndarray,
    *,
    statistic: Callable[[np.ndarray, int], np.ndarray] = mean_of_values,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile 95 % interval of statistic(ours) - statistic(baseline) over test images.

    `ours` and `baseline` are (N, ...) per-image contributions in the same order of images; the
    same images are drawn for both, so what is common to a hard image cancels. `statistic` gets
    sums over the drawn images (draws, ...) and N. Images without a value (NaN) are left out.
    """
    if ours.shape != baseline.shape:
        raise ValueError(f"per-image arrays do not pair: {ours.shape} and {baseline.shape}")
    missing = np.isnan(ours) | np.isnan(baseline)  # (N, ...)
    kept = ~missing.reshape(len(ours), -1).any(axis=1)
    ours, baseline = ours[kept], baseline[kept]
    if len(ours) == 0:
        raise ValueError("no test image has a value of both models")
    n = len(ours)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    weights = np.concatenate([np.ones((1, n), dtype=weights.dtype), weights])  # first: the sample
    a, b = (
        statistic(np.tensordot(weights, array.astype(np.float64), axes=1), n)
        for array in (ours, baseline)
    )
    difference = a - b  # (1 + draws,)
    low, high = np.quantile(difference[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(difference[0]), float(low), float(high))


@dataclass(frozen=True, kw_only=True)
class ImageComparison:
    """Difference ours - baseline on one measure and seed, paired over `n` test images."""

    measure: Measure
    seed: int
    n: int
    difference: Interval


def compare_images(
    rows: Sequence[Result], folder: Path, ours: str, baseline: str
) -> list[ImageComparison]:
    """Bootstrap intervals of every measure whose per-image values lie in `folder`; first seed."""
    found: dict[Measure, ImageComparison] = {}
    other = {(Measure.of(row), row.seed): row for row in rows if row.model == baseline}
    for row in sorted(rows, key=lambda row: row.seed):
        measure = Measure.of(row)
        pair = other.get((measure, row.seed))
        if row.model != ours or pair is None or measure in found:
            continue
        paths = [per_image_path(folder, one) for one in (row, pair)]
        if all(path.exists() for path in paths):
            a, b = (read_per_image(path) for path in paths)
            statistic = mean_iou if a.ndim == 3 else mean_of_values
            interval = paired_bootstrap(a, b, statistic=statistic)
            found[measure] = ImageComparison(
                measure=measure, seed=row.seed, n=len(a), difference=interval
            )
    return [found[measure] for measure in measures_in_order(list(rows)) if measure in found]


def read_per_image(path: Path) -> np.ndarray:
    """The array `values` (N, ...) of a .npz of per-image contributions."""
    with np.load(path, allow_pickle=False) as file:
        if "values" not in file:
            raise ValueError(f"{path}: no array named 'values' (there are {sorted(file)})")
        return file["values"]
