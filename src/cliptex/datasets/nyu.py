"""NYU Depth v2: the labelled subset in its MATLAB file, with the official splits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from cliptex.datasets.mat import open_h5, read_mat, read_row
from cliptex.datasets.protocol import DenseItem, require, unknown_split
from cliptex.labels.kinds import ScalarField

LABELLED = "nyu_depth_v2_labeled.mat"
LAYOUT = f"""  ROOT/{LABELLED}   (HDF5: images, depths, rawDepths)
  ROOT/splits.mat                 (trainNdxs, testNdxs, optionally valNdxs; 1-based)"""
SUFFIX = "Ndxs"


class NyuDepth:
    """Pictures and depth in metres of one split: train, test, or val where the splits have one.

    MATLAB stores arrays transposed: `images` (N, 3, W, H) and depths (N, W, H). `depths` are
    in-painted; `rawDepths` hold 0 where the sensor saw nothing. Depth that is not positive and
    finite becomes NaN. One picture is read at a time; the file is opened once per process.
    ValueError names a file that is damaged, lacks an array, or has fewer pictures than are listed.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        depths: Literal["depths", "rawDepths"] = "depths",
        name: str = "nyu-depth",
    ) -> None:
        self.name = name
        self.kind = ScalarField(unit="m")
        self.depths = depths
        self._path = require(Path(root) / LABELLED, LAYOUT)
        self._file: h5py.File | None = None
        path = require(Path(root) / "splits.mat", LAYOUT)
        splits = read_splits(path)
        if split not in splits:
            raise unknown_split(path, split, list(splits), LAYOUT)
        self.indices = splits[split]
        count = min(_rows(self._path, key) for key in ("images", depths))
        if not len(self.indices) or self.indices.min() < 0 or self.indices.max() >= count:
            raise ValueError(
                f"{path}: {split}{SUFFIX} must be numbers from 1 to {count}, the pictures of "
                f"{self._path}, but {_span(self.indices)}: list those that it holds"
            )

    def _open(self) -> h5py.File:
        if self._file is None:
            self._file = open_h5(self._path)
        return self._file

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None}  # open files do not cross processes

    @property
    def keys(self) -> list[str]:
        """Numbers in the MATLAB file, from 0, in six digits: the names of Bae et al.'s pictures."""
        return [f"{index:06d}" for index in self.indices.tolist()]

    @property
    def pictures(self) -> list[str]:
        """What tells the pictures apart over all splits: their keys."""
        return self.keys

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> DenseItem:
        file, row = self._open(), int(self.indices[index])
        image = read_row(file, "images", row).transpose(2, 1, 0)  # (3, W, H) -> (H, W, 3)
        depth = read_row(file, self.depths, row).T.astype(np.float32)  # (W, H) -> (H, W)
        with np.errstate(invalid="ignore"):
            depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))
        return DenseItem(image=np.ascontiguousarray(image), target=np.ascontiguousarray(depth))


def read_splits(path: Path) -> dict[str, np.ndarray]:
    """By split, (N,) int64 rows of the labelled file, from 0 (MATLAB counts from 1)."""
    found = {
        key.removesuffix(SUFFIX): values.ravel().astype(np.int64) - 1
        for key, values in read_mat(path).items()
        if key.endswith(SUFFIX)
    }
    if not found:
        raise ValueError(f"{path} has no train{SUFFIX} or test{SUFFIX}; expected:\n{LAYOUT}")
    return found


def _rows(path: Path, key: str) -> int:
    with open_h5(path) as file:
        data = file.get(key)
        if not isinstance(data, h5py.Dataset):
            raise ValueError(f"{path} has no {key!r}; expected:\n{LAYOUT}")
        return len(data)


def _span(indices: np.ndarray) -> str:
    """Of rows from 0, as MATLAB counts them."""
    return f"are {indices.min() + 1} to {indices.max() + 1}" if len(indices) else "there are none"
