"""Surface normals as PNG folders, the layout in which Bae et al. 2021 ship NYUv2."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliptex.datasets.protocol import (
    DenseItem,
    read_image,
    require,
    with_suffix_of,
)
from cliptex.labels.kinds import UnitVector

LAYOUT = """  ROOT/{train,test}/img/000000.png
  ROOT/{train,test}/norm/000000.png   (RGB = round((n + 1) * 127.5); (0, 0, 0) = invalid)"""


class NormalsFolder:
    """Pictures and unit normals of one split.

    `root` holds the splits, or a folder `normals` that does. The frame is right, down, forward,
    pointing away from the camera; invalid pixels are (0, 0, 0).
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "nyu-normals") -> None:
        self.name = name
        self.kind = UnitVector()
        folder = Path(root)
        if (folder / "normals").is_dir():
            folder = folder / "normals"
        self._images = require(folder / split / "img", LAYOUT)
        self._normals = sorted(require(folder / split / "norm", LAYOUT).glob("*.png"))
        if not self._normals:
            raise FileNotFoundError(f"{folder / split / 'norm'} is empty; expected:\n{LAYOUT}")

    def __len__(self) -> int:
        return len(self._normals)

    def __getitem__(self, index: int) -> DenseItem:
        path = self._normals[index]
        image = read_image(with_suffix_of(self._images, path.stem))
        return DenseItem(image=image, target=decode_normals(read_image(path)))


def decode_normals(rgb: np.ndarray) -> np.ndarray:
    """Unit normals (H, W, 3) float32 of an (H, W, 3) uint8 picture; black becomes (0, 0, 0)."""
    valid = rgb.any(-1, keepdims=True)  # (H, W, 1)
    normals = rgb.astype(np.float32) / 127.5 - 1
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(valid, normals / np.maximum(length, 1e-6), 0).astype(np.float32)
