"""Scores per test image, kept beside `results.jsonl` for intervals paired over images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cliptex.files import file_name, write_atomic
from cliptex.results import Result

OF_CLASSES = np.dtype([("label", "<i4"), ("hit", "<f8")])
"""What an image adds to a mean over classes of shares of images: its class, and the probability
from 0 to 1 that it is named right. Files of older versions hold right or wrong as a bool."""


def per_image_path(folder: Path, row: Result) -> Path:
    """Where the per-image values of `row` are kept: one .npz per model, measure and seed."""
    test = (row.task, row.dataset, row.probe, row.variant, row.metric)
    parts = (row.model, *test, f"seed{row.seed}")
    name = "--".join(part for part in parts if part)
    return folder / f"{file_name(name, safe=' ,')}.npz"  # a model may be called like a path


def save_per_image(
    folder: Path, row: Result, values: np.ndarray | Mapping[str, np.ndarray]
) -> Path:
    """Write what each test image adds to `row`, in the order of the test images.

    Either `values`: (N,) whose mean is the row's value (NaN: an image without any); (N, 2)
    numerators and denominators of a ratio of sums, as for metrics pooled over pixels or captions
    (percentages are 100 times the ratio, RMSE is its root); (N, C, 3) pixels of intersection,
    prediction and truth per class, for mIoU; or (N,) of `OF_CLASSES`. Or several named arrays, as
    for detection (see `cliptex.report.bootstrap`).
    """
    arrays = values if isinstance(values, Mapping) else {"values": values}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    path = per_image_path(folder, row)
    write_atomic(path, buffer.getvalue())
    return path
