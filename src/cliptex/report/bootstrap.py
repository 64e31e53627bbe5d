"""How far the choice of test images moves the difference of two models: a paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cliptex.per_image import per_image_path
from cliptex.report.compare import CONFIDENCE, Interval
from cliptex.report.names import Measure, measures_in_order
from cliptex.report.resampled_ap import resampled_ap
from cliptex.results import Result

DRAWS = 2000
DRAWS_OF_AP = 200
"""Average precision is sorted anew in every draw: half a second per 100 draws and 10,000 boxes."""
REPRODUCED = 2e-3
"""Relative error up to which values of single images must give their row's value."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""How often each image is drawn, (D, N) integers -> the metric of each draw, (D,) float64."""


def mean_of_values(sums: np.ndarray, count: int) -> np.ndarray:
    """Mean per-image value: `sums` (draws,) of per-image values (N,)."""
    return sums / count


def ratio_of_sums(sums: np.ndarray, count: int) -> np.ndarray:
    """A metric pooled over pixels: `sums` (draws, 2) of per-image numerators and denominators."""
    del count  # a ratio of sums does not need it
    below = sums[..., 1]
    return np.divide(sums[..., 0], below, out=np.full(below.shape, np.nan), where=below > 0)


def mean_of_ratios(sums: np.ndarray, count: int) -> np.ndarray:
    """Mean over classes in % of `sums` (draws, C, 2), as mIoU: absent classes are left out."""
    return 100 * np.nanmean(ratio_of_sums(sums, count), axis=-1)


Formula = Callable[[np.ndarray, int], np.ndarray]


def formula_of(measure: Measure, values: np.ndarray) -> Formula:
    """How per-image `values` become the metric: see `cliptex.per_image.save_per_image`."""
    if values.ndim == 1:
        return mean_of_values
    if values.ndim == 3:
        return mean_of_ratios
    if measure.name.unit == "%":
        return lambda sums, count: 100 * ratio_of_sums(sums, count)
    if "rmse" in measure.metric:
        return lambda sums, count: np.sqrt(ratio_of_sums(sums, count))
    return ratio_of_sums


def of_arrays(values: np.ndarray, formula: Formula) -> Statistic:
    """The statistic of per-image `values` (N, ...), without NaN."""
    exact = values.astype(np.float64)
    return lambda weights: formula(np.tensordot(weights, exact, axes=1), len(exact))


def bootstrap(ours: Statistic, baseline: Statistic, n: int, *, draws: int, seed: int) -> Interval:
    """Percentile 95 % interval of ours - baseline over `draws` draws of `n` images.

    The same images are drawn for both, so what is common to a hard image cancels. The mean is that
    of the sample itself. Draws without a value (no image with a valid pixel) are left out.
    """
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    weights = np.concatenate([np.ones((1, n), dtype=drawn.dtype), drawn])  # first: the sample
    difference = ours(weights) - baseline(weights)  # (1 + draws,)
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low, high = np.nanquantile(difference[1:], tails)
    return Interval(float(difference[0]), float(low), float(high))


def paired_bootstrap(
    ours: np.ndarray,
    baseline: np.ndarray,
    *,
    formula: Formula = mean_of_values,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Interval of formula(ours) - formula(baseline) over test images; see `bootstrap`.

    `ours` and `baseline` are (N, ...) per-image contributions in the same order of images. Images
    without a value (NaN) are left out. ValueError where the two do not pair.
    """
    if ours.shape != baseline.shape:
        raise ValueError(f"per-image arrays do not pair: {ours.shape} and {baseline.shape}")
    missing = np.isnan(ours) | np.isnan(baseline)  # (N, ...)
    kept = ~missing.reshape(len(ours), -1).any(axis=1)
    if not kept.any():
        raise ValueError("no test image has a value of both models")
    a, b = (of_arrays(values[kept], formula) for values in (ours, baseline))
    return bootstrap(a, b, int(kept.sum()), draws=draws, seed=seed)


@dataclass(frozen=True, kw_only=True)
class ImageComparison:
    """Difference ours - baseline on one measure and seed, paired over `n` test images.

    `difference` is None where what is stored per image does not give the rows' own values.
    """

    measure: Measure
    seed: int
    n: int
    difference: Interval | None


def compare_images(
    rows: Sequence[Result], folders: Sequence[Path], ours: str, baseline: str
) -> list[ImageComparison]:
    """Intervals of every measure whose per-image values lie in one of `folders`; first seed."""
    found: dict[Measure, ImageComparison] = {}
    other = {(Measure.of(row), row.seed): row for row in rows if row.model == baseline}
    for row in sorted(rows, key=lambda row: row.seed):
        measure = Measure.of(row)
        pair = other.get((measure, row.seed))
        if row.model != ours or pair is None or measure in found:
            continue
        paths = [_existing(per_image_path(f, one) for f in folders) for one in (row, pair)]
        if paths[0] is not None and paths[1] is not None:
            found[measure] = _compared(measure, (row, pair), (paths[0], paths[1]))
    return [found[measure] for measure in measures_in_order(list(rows)) if measure in found]


def _existing(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _compared(
    measure: Measure, rows: tuple[Result, Result], paths: tuple[Path, Path]
) -> ImageComparison:
    a, b = (read_per_image(path) for path in paths)
    try:
        n, interval = _of_matches(a, b) if "score" in a else _of_values(measure, a, b)
    except ValueError as error:
        raise ValueError(f"{paths[0]} and {paths[1]}: {error}") from error
    told = rows[0].value - rows[1].value
    size = max(abs(row.value) for row in rows)
    same = abs(interval.mean - told) <= REPRODUCED * size
    return ImageComparison(
        measure=measure, seed=rows[0].seed, n=n, difference=interval if same else None
    )


def _of_values(
    measure: Measure, a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]
) -> tuple[int, Interval]:
    formula = formula_of(measure, a["values"])
    return len(a["values"]), paired_bootstrap(a["values"], b["values"], formula=formula)


def _of_matches(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> tuple[int, Interval]:
    if not np.array_equal(a["objects"], b["objects"]):
        raise ValueError("the two models were not scored on the same objects")
    n = len(a["objects"])
    ours, baseline = partial(resampled_ap, a), partial(resampled_ap, b)
    return n, bootstrap(ours, baseline, n, draws=DRAWS_OF_AP, seed=0)


def read_per_image(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz of per-image contributions; see `cliptex.per_image.save_per_image`."""
    with np.load(path, allow_pickle=False) as file:
        if "values" not in file and "score" not in file:
            raise ValueError(f"{path}: no array named 'values' (there are {sorted(file)})")
        return {name: file[name] for name in file}
