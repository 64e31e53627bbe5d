"""Scores per test image, kept beside `results.jsonl` for intervals paired over images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from cliptex.files import write_atomic
from cliptex.results import Result


def per_image_path(folder: Path, row: Result) -> Path:
    """Where the per-image values of `row` are kept: one .npz per model, measure and seed."""
    parts = (row.model, row.task, row.dataset, row.probe, row.metric, f"seed{row.seed}")
    return folder / ("--".join(part for part in parts if part) + ".npz")


def save_per_image(folder: Path, row: Result, values: np.ndarray) -> Path:
    """Write `values` (N, ...), in the order of the test images, as the array `values`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, values=values)
    path = per_image_path(folder, row)
    write_atomic(path, buffer.getvalue())
    return path
