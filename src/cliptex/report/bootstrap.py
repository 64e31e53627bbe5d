"""How far the choice of test images moves the difference of two models: a paired bootstrap."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from cliptex.metrics import iou_from_counts, mean_of_present, percent_of
from cliptex.per_image import OF_CLASSES, per_image_path
from cliptex.report.comparability import without_split
from cliptex.report.compare import CONFIDENCE, Interval
from cliptex.report.names import Measure, control_kind, measures_in_order
from cliptex.results import Result

DRAWS = 2000
DRAWS_OF_AP = 200
"""Average precision is sorted anew in every draw: half a second per 100 draws and 10,000 boxes."""
CHUNK_BYTES = 64 * 2**20
"""Memory for the draws that are computed at once: 50,000 images in 2,000 draws are 800 MB."""
REPRODUCED = 2e-3
"""Relative error up to which values of single images must give their row's value."""
NOT_REPRODUCED = "none: the values kept per image do not give the row's value"
OUTDATED = (
    "none: what is kept per image is of an older version, {lack}; remove these rows and run "
    "{again} again"
)
DAMAGED = (ValueError, TypeError, EOFError, OSError, RuntimeError, BadZipFile, zlib.error)
"""What numpy and zipfile raise for bytes that are no whole .npz, by where these went wrong."""
AGAIN = "remove it and its rows, and measure them again"
MATCHES = frozenset({"image", "category", "score", "matched", "ignored", "objects"})
"""Arrays that `resampled_ap` takes instead of `values`."""

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


def mean_iou(sums: np.ndarray, count: int) -> np.ndarray:
    """mIoU in % by `sums` (draws, C, 3) of areas: classes absent from a draw's truth left out."""
    del count
    return mean_of_present(iou_from_counts(*np.moveaxis(sums, -1, 0)))


Formula = Callable[[np.ndarray, int], np.ndarray]


def formula_of(measure: Measure, values: np.ndarray) -> Formula:
    """How per-image `values` become the metric: see `cliptex.per_image.save_per_image`."""
    if values.ndim == 1:
        return mean_of_values
    if values.ndim == 3:
        return mean_iou
    if measure.name.unit == "%":
        return lambda sums, count: 100 * ratio_of_sums(sums, count)
    if "rmse" in measure.metric:
        return lambda sums, count: np.sqrt(ratio_of_sums(sums, count))
    return ratio_of_sums


def of_arrays(values: np.ndarray, formula: Formula) -> Statistic:
    """The statistic of per-image `values` (N, ...), without NaN."""
    exact = values.astype(np.float64)
    return lambda weights: formula(np.tensordot(weights, exact, axes=1), len(exact))


def of_classes(values: np.ndarray) -> Statistic:
    """The mean over classes in % of `values` (N,) of `OF_CLASSES`, by `metrics.mean_per_class`."""
    order = np.argsort(values["label"], kind="stable")
    hits = values["hit"][order]
    starts = np.flatnonzero(np.diff(values["label"][order], prepend=-1))  # of each class

    def mean(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, order]
        count = np.add.reduceat(drawn, starts, axis=1)  # (D, classes)
        return mean_of_present(percent_of(np.add.reduceat(drawn * hits, starts, axis=1), count))

    return mean


def bootstrap(
    ours: Statistic, baseline: Statistic, n: int, *, draws: int, seed: int, extra: int = 0
) -> Interval:
    """Percentile 95 % interval of ours - baseline over `draws` draws of `n` images.

    The same images are drawn for both, so what is common to a hard image cancels. The mean is that
    of the sample itself. Draws without a value (no image with a valid pixel) are left out. As many
    draws are computed at once as CHUNK_BYTES hold, which changes nothing but memory; `extra`
    numbers are what a statistic holds per draw beside some per image.
    """
    random = np.random.default_rng(seed)
    chunk = max(1, CHUNK_BYTES // (8 * (4 * n + extra)))  # 4: draws, sorted, as floats, products
    found = []
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        weights = random.multinomial(n, np.full(n, 1 / n), size=size)  # (size, N)
        found.append(ours(weights) - baseline(weights))
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low, high = np.nanquantile(np.concatenate(found), tails)
    sample = np.ones((1, n), dtype=np.int64)
    return Interval(float((ours(sample) - baseline(sample))[0]), float(low), float(high))


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

    `difference` is None where what is stored per image cannot give it; `problem` says why.
    """

    measure: Measure
    seed: int
    n: int
    difference: Interval | None
    problem: str = ""


def compare_images(
    rows: Sequence[Result], folders: Sequence[Path], ours: str, baseline: str
) -> list[ImageComparison]:
    """Intervals of every measure whose per-image values lie in one of `folders`; first seed.

    What cannot be paired has no interval, and says why.
    """
    found: dict[Measure, ImageComparison] = {}
    other = {(Measure.of(row), row.seed): row for row in rows if row.model == baseline}
    for row in sorted(rows, key=lambda row: row.seed):
        measure = Measure.of(row)
        pair = other.get((measure, row.seed))
        if row.model != ours or pair is None or measure in found:
            continue
        paths = [_existing(one, folders) for one in (row, pair)]
        if paths[0] is not None and paths[1] is not None:
            found[measure] = _compared(measure, (row, pair), (paths[0], paths[1]))
    return [found[measure] for measure in measures_in_order(list(rows)) if measure in found]


def _existing(row: Result, folders: Sequence[Path]) -> Path | None:
    """Where `row` has its per-image values; a split that others told (`with_splits`) and the
    number of a further control (`controls_apart`) are no part of its file's name."""
    bare = row.model_copy(update={"model": control_kind(row.model)})
    names = (row, without_split(row), bare, without_split(bare))
    paths = (per_image_path(f, one) for one in names for f in folders)
    return next((path for path in paths if path.exists()), None)


def _compared(
    measure: Measure, rows: tuple[Result, Result], paths: tuple[Path, Path]
) -> ImageComparison:
    about = {"measure": measure, "seed": rows[0].seed}
    try:
        a, b = (read_per_image(path) for path in paths)
    except ValueError as error:
        return ImageComparison(**about, n=rows[0].n, difference=None, problem=f"none: {error}")
    if problem := _outdated(measure, a) or _outdated(measure, b):
        return ImageComparison(**about, n=rows[0].n, difference=None, problem=problem)
    try:
        if ("values" in a) != ("values" in b):
            raise ValueError("one holds values, the other matches")
        n, interval = _of_values(measure, a, b) if "values" in a else _of_matches(a, b)
    except ValueError as error:
        problem = f"none: {paths[0].name} and {paths[1].name}: {error}"
        return ImageComparison(**about, n=rows[0].n, difference=None, problem=problem)
    told = rows[0].value - rows[1].value
    size = max(abs(row.value) for row in rows)
    if abs(interval.mean - told) <= REPRODUCED * size:
        return ImageComparison(**about, n=n, difference=interval)
    return ImageComparison(**about, n=n, difference=None, problem=NOT_REPRODUCED)


def _outdated(measure: Measure, found: Mapping[str, np.ndarray]) -> str:
    """Why these give no interval though older versions kept them so; "" where they do.

    Intersections and unions (N, C, 2) say nothing of absent classes; one hit per caption (M,)
    would have captions resampled, which are hit or missed together with others of their image.
    """
    values = found.get("values", np.empty(0))
    if values.ndim == 3 and values.shape[2] == 2:
        return OUTDATED.format(lack="without the truth's areas", again="the probe")
    if values.ndim == 1 and measure.metric.startswith("image_r"):
        return OUTDATED.format(lack="one value per caption", again="cliptex zeroshot")
    return ""


def _of_values(
    measure: Measure, a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]
) -> tuple[int, Interval]:
    ours, baseline = a["values"], b["values"]
    if ours.dtype.names == baseline.dtype.names == OF_CLASSES.names:
        if not np.array_equal(ours["label"], baseline["label"]):
            raise ValueError("the two models were not scored on the same classes")
        pair = of_classes(ours), of_classes(baseline)
        return len(ours), bootstrap(*pair, len(ours), draws=DRAWS, seed=0)
    return len(ours), paired_bootstrap(ours, baseline, formula=formula_of(measure, ours))


def _of_matches(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> tuple[int, Interval]:
    if not np.array_equal(a["objects"], b["objects"]):
        raise ValueError("the two models were not scored on the same objects")
    n = len(a["objects"])
    ours, baseline = partial(resampled_ap, a), partial(resampled_ap, b)
    most = max(np.bincount(one["category"], minlength=1).max() for one in (a, b))
    return n, bootstrap(ours, baseline, n, draws=DRAWS_OF_AP, seed=0, extra=8 * int(most))


def read_per_image(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz of per-image contributions; see `cliptex.per_image.save_per_image`.

    ValueError names a file that is damaged or holds neither `values` nor `MATCHES`.
    """
    content = io.BytesIO(path.read_bytes())  # of a path, numpy leaves a damaged file open
    try:
        with np.load(content, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in file}
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged: {AGAIN}") from error
    if "values" not in found and not found.keys() >= MATCHES:
        raise ValueError(f"{path}: no array named 'values' (there are {sorted(found)}): {AGAIN}")
    return found


RECALLS = np.linspace(0, 1, 101)


def resampled_ap(found: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """AP in % of each draw, (D,); `weights` (D, N) say how often each image is drawn.

    Matches do not reach beyond an image, so drawing images only reweights them.

    Args:
        found: `image` (M,) and `category` (M,) of every detection, its `score` (M,), whether it is
            `matched` and whether it is `ignored` (M, T) at each of T overlaps, and the `objects`
            (N, K) that count per image and category. AP is the mean over overlaps and over the
            categories with an object; NaN for a draw without any.
    """
    objects = weights @ found["objects"].astype(np.float64)  # (D, K)
    scores = np.full((len(weights), objects.shape[1]), np.nan)
    for category in np.flatnonzero(found["objects"].any(axis=0)):
        rows = np.flatnonzero(found["category"] == category)
        rows = rows[np.argsort(-found["score"][rows], kind="stable")]
        drawn = weights[:, found["image"][rows]].astype(np.float64)  # (D, m)
        counted = ~found["ignored"][rows]  # (m, T)
        hits = found["matched"][rows] & counted
        scores[:, category] = np.mean(
            [
                _precision(drawn * hit, drawn * count, objects[:, category])
                for hit, count in zip(hits.T, counted.T, strict=True)
            ],
            axis=0,
        )
    return 100 * mean_of_present(scores)


def _precision(hits: np.ndarray, counted: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Mean over `RECALLS` of the interpolated precision; (D, m), (D, m), (D,) -> (D,)."""
    true, found = hits.cumsum(axis=1), counted.cumsum(axis=1)
    precision = true / np.maximum(found, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    result = np.full(len(hits), np.nan)
    for draw in np.flatnonzero(objects > 0):
        first = np.searchsorted(true[draw] / objects[draw], RECALLS, side="left")
        reached = first[first < precision.shape[1]]
        result[draw] = precision[draw, reached].sum() / len(RECALLS)
    return result
