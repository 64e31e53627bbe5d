"""MATLAB's files, old (scipy) and new (HDF5), with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io


def read_mat(path: Path, **options: Any) -> dict[str, Any]:
    """What scipy's `loadmat` gives; ValueError names a file that is not whole."""
    try:
        return scipy.io.loadmat(path, **options)
    except FileNotFoundError:
        raise
    except Exception as error:  # scipy raises nearly anything on bad bytes
        raise ValueError(_not_whole(path, error)) from error


def open_h5(path: Path) -> h5py.File:
    """The file, open for reading; ValueError names one that is not whole."""
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        raise ValueError(_not_whole(path, error)) from error


def read_row(file: h5py.File, key: str, row: int) -> np.ndarray:
    """Row `row` of the array `key`; ValueError names the file where that is absent or damaged."""
    data = file.get(key)
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"{file.filename} has no array {key!r}")
    try:
        return np.asarray(data[row])
    except (OSError, RuntimeError, IndexError) as error:
        raise ValueError(f"{file.filename}, {key!r}, row {row}: {error}") from error


def _not_whole(path: Path, error: Exception) -> str:
    return (
        f"{path} is not a complete MATLAB file (was its download cut off? Download it again): "
        f"{error}"
    )
