"""NYU Depth v2's video frames: the lists of BTS (24,231 frames), or FastDepth's files (47,584)."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from cliptex.datasets.class_ids import read_ids
from cliptex.datasets.mat import open_h5
from cliptex.datasets.protocol import (
    DenseItem,
    paired,
    read_image,
    read_lines,
    refuse_empty,
    require,
    unknown_split,
)
from cliptex.labels.kinds import ScalarField

LAYOUT = """  ROOT/nyudepthv2_{train,test}_files_with_gt.txt   ("RGB DEPTH FOCAL" a line)
  ROOT/sync/SCENE/rgb_00000.jpg, sync_depth_00000.png   (train; 16 bits, millimetres)
  ROOT/official_splits/test/SCENE/...                   (test)
 or, as FastDepth unpacks:
  ROOT/{train,val}/SCENE/00001.h5   (rgb (3, H, W) uint8, depth (H, W) metres)"""
IMAGES = {"train": "sync", "test": "official_splits/test"}
MILLIMETRES = np.float32(1000)


class NyuRaw:
    """Frames and depth in metres of one split (train, test; of FastDepth's files also val).

    Depth of 0 was not measured and becomes NaN. FastDepth calls the 654 test pictures val: both
    names work. No frame of the training scenes is in the test set, but frames of one room are
    near-copies of each other.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "nyu-raw") -> None:
        self.name = name
        self.kind = ScalarField(unit="m")
        root = Path(root)
        list_file = root / list_name(split)
        if split in IMAGES and list_file.exists():
            folder = require(root / IMAGES[split], LAYOUT)
            self.files = [_pair(line, list_file, folder) for line in read_lines(list_file)]
            refuse_empty(self.files, list_file)
            return
        folder = root / split
        if split == "test" and not folder.is_dir():
            folder = root / "val"
        if not folder.is_dir():
            raise unknown_split(root, split, splits_of(root), LAYOUT)
        self.files = [(path, path) for path in sorted(folder.rglob("*.h5"))]
        if not self.files:
            raise FileNotFoundError(f"{folder} holds no .h5; expected:\n{LAYOUT}")

    @property
    def pictures(self) -> list[str]:
        """What tells the pictures apart over all splits: their files."""
        return [str(image) for image, _ in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> DenseItem:
        image, depth = self.files[index]
        if image == depth:
            pixels, metres = _h5(image)
        else:
            pixels = read_image(image, upright=False)
            metres = read_ids(depth).astype(np.float32) / MILLIMETRES
        with np.errstate(invalid="ignore"):
            metres = np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(np.nan))
        return paired(pixels, metres, image, depth)


def list_name(split: str) -> str:
    """The file in which BTS lists a split."""
    return f"nyudepthv2_{split}_files_with_gt.txt"


def splits_of(root: Path) -> list[str]:
    """The splits that have a list (BTS) or a folder of .h5 (FastDepth)."""
    lists = {split for split in IMAGES if (root / list_name(split)).exists()}
    return sorted(lists | {path.parts[-3] for path in root.glob("*/*/*.h5")})


def _pair(line: str, path: Path, folder: Path) -> tuple[Path, Path]:
    words = line.split()
    if len(words) not in (2, 3):
        raise ValueError(f"{path}: expected 'RGB DEPTH FOCAL', got {line!r}")
    return folder / words[0].lstrip("/"), folder / words[1].lstrip("/")


def _h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with open_h5(path) as file:
        rgb, depth = file.get("rgb"), file.get("depth")
        if not isinstance(rgb, h5py.Dataset) or not isinstance(depth, h5py.Dataset):
            raise ValueError(f"{path} has no 'rgb' and 'depth'; expected:\n{LAYOUT}")
        image = np.ascontiguousarray(np.asarray(rgb).transpose(1, 2, 0))  # (3, H, W) -> (H, W, 3)
        return image, np.asarray(depth, np.float32)
