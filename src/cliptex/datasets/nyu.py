"""NYU Depth v2: the labelled subset in its MATLAB file, with the official splits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import scipy.io

from cliptex.datasets.protocol import DenseItem, require
from cliptex.labels.kinds import ScalarField

LAYOUT = """  ROOT/nyu_depth_v2_labeled.mat   (HDF5: images, depths, rawDepths)
  ROOT/splits.mat                 (trainNdxs, testNdxs, optionally valNdxs; 1-based)"""


class NyuDepth:
    """Pictures and depth in metres of one split: train, test, or val where the splits have one.

    MATLAB stores arrays transposed: `images` (N, 3, W, H) and depths (N, W, H). `depths` are
    in-painted; `rawDepths` hold 0 where the sensor saw nothing. Depth that is not positive and
    finite becomes NaN. One picture is read at a time; the file is opened once per process.
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
        self._path = require(Path(root) / "nyu_depth_v2_labeled.mat", LAYOUT)
        self._file: h5py.File | None = None
        splits = require(Path(root) / "splits.mat", LAYOUT)
        content = scipy.io.loadmat(splits)
        if f"{split}Ndxs" not in content:
            known = sorted(key[:-4] for key in content if key.endswith("Ndxs"))
            raise ValueError(f"{splits} has no split {split!r}, only {known}")
        self.indices = content[f"{split}Ndxs"].ravel().astype(np.int64) - 1  # MATLAB counts from 1

    def _open(self) -> h5py.File:
        if self._file is None:
            self._file = h5py.File(self._path, "r")
            for key in ("images", self.depths):
                if key not in self._file:
                    raise ValueError(f"{self._path} has no {key!r}; expected:\n{LAYOUT}")
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
        image = _rows(file, "images", row).transpose(2, 1, 0)  # (3, W, H) -> (H, W, 3)
        depth = _rows(file, self.depths, row).T.astype(np.float32)  # (W, H) -> (H, W)
        with np.errstate(invalid="ignore"):
            depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))
        return DenseItem(image=np.ascontiguousarray(image), target=np.ascontiguousarray(depth))


def _rows(file: h5py.File, key: str, row: int) -> np.ndarray:
    data = file[key]
    assert isinstance(data, h5py.Dataset)
    return np.asarray(data[row])
