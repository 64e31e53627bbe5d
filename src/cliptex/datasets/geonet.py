"""Surface normals of NYUv2 as GeoNet (Qi et al. 2018) ships them, in MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliptex.datasets.mat import open_h5, read_mat, read_row
from cliptex.datasets.nyu import read_splits
from cliptex.datasets.protocol import DenseItem, refuse_empty, require, unknown_split
from cliptex.labels.kinds import UnitVector

LAYOUT = """  ROOT/train/**/*.mat    (img, norm, mask of one picture each, 481 x 641)
  ROOT/gt/norm_gt_l.mat, ROOT/gt/masks.mat, ROOT/gt/splits.mat   (all 1449 pictures)
  ROOT/nyu_depth_v2_labeled.mat   (the pictures of gt)"""
MEAN_BGR = np.array([104.008, 116.669, 122.675])  # of GeoNet's code, in colour levels
ROUNDING = 1.0  # colour levels by which a decoded picture may leave 0 to 255


class GeoNetNormals:
    """Pictures and unit normals: train (30,907 files, of video frames), or test (654).

    A training file holds `img` as blue, green, red less twice the mean, which GeoNet's own code
    undoes in two places; its 481st row and 641st column are padding and are cut off. Where `mask`
    is 0 there is no normal.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "geonet-normals") -> None:
        self.name = name
        self.kind = UnitVector()
        root = Path(root)
        if split == "train":
            self._source: _Frames | _Labelled = _Frames(root)
        elif split == "test":
            self._source = _Labelled(root)
        else:
            raise unknown_split(root, split, ("train", "test"), LAYOUT)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> DenseItem:
        image, normals, mask = self._source.read(index)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)  # (H, W, 1)
        valid = (mask[..., None] > 0) & (length > 0.5)
        unit = np.where(valid, normals / np.maximum(length, 1e-6), 0).astype(np.float32)
        return DenseItem(image=image, target=unit)


class _Frames:
    def __init__(self, root: Path) -> None:
        folder = require(root / "train", LAYOUT)
        self._paths = sorted(folder.rglob("*.mat"))
        if not self._paths:
            raise FileNotFoundError(f"{folder} holds no .mat; expected:\n{LAYOUT}")

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path = self._paths[index]
        content = read_mat(path)
        absent = {"img", "norm", "mask"} - content.keys()
        if absent:
            raise ValueError(f"{path} has no {sorted(absent)}; expected:\n{LAYOUT}")
        colours = content["img"][:-1, :-1].astype(np.float64) + 2 * MEAN_BGR
        if colours.min() < -ROUNDING or colours.max() > 255 + ROUNDING:
            raise ValueError(
                f"{path}: img decodes to colours {colours.min():.0f} to {colours.max():.0f}, not "
                "0 to 255: it is not stored less twice the mean, as GeoNet's code expects"
            )
        image = np.clip(np.round(colours), 0, 255).astype(np.uint8)[..., ::-1]
        return np.ascontiguousarray(image), content["norm"][:-1, :-1], content["mask"][:-1, :-1]


class _Labelled:
    def __init__(self, root: Path) -> None:
        gt = require(root / "gt", LAYOUT)
        self._paths = {
            "norm_gt_l": require(gt / "norm_gt_l.mat", LAYOUT),
            "masks": require(gt / "masks.mat", LAYOUT),
            "images": require(root / "nyu_depth_v2_labeled.mat", LAYOUT),
        }
        path = require(gt / "splits.mat", LAYOUT)
        self._indices = read_splits(path).get("test", np.empty(0, np.int64))
        refuse_empty(self._indices, path, "no testNdxs")

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row = int(self._indices[index])
        image = self._row("images", row).transpose(2, 1, 0)  # (3, W, H) -> (H, W, 3)
        normals = self._row("norm_gt_l", row).transpose(2, 1, 0)
        return np.ascontiguousarray(image), normals, self._row("masks", row).T

    def _row(self, key: str, row: int) -> np.ndarray:
        with open_h5(self._paths[key]) as file:  # MATLAB v7.3: axes are reversed
            return read_row(file, key, row)
