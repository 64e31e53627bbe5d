"""Surface normals as PNG folders, in the layouts of Bae et al. 2021 and of DSINE."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliptex.datasets.protocol import (
    DenseItem,
    paired,
    read_image,
    require,
    unknown_split,
    with_suffix_of,
)
from cliptex.labels.kinds import UnitVector

LAYOUT = """  ROOT/{train,test}/img/000000.png
  ROOT/{train,test}/norm/000000.png   (RGB = round((n + 1) * 127.5); (0, 0, 0) = invalid)"""

DSINE_LAYOUT = """  dsine_eval/nyuv2/{train,test}/000000_img.png   (other sets: SCENE/...)
  dsine_eval/nyuv2/{train,test}/000000_normal.png   (RGB = (n + 1) * 127.5; (0, 0, 0) = invalid)"""


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
        if not (folder / split).is_dir():
            known = sorted(path.parent.name for path in folder.glob("[!.]*/norm"))
            raise unknown_split(folder, split, known, LAYOUT)
        self._images = require(folder / split / "img", LAYOUT)
        self._normals = sorted(require(folder / split / "norm", LAYOUT).glob("*.png"))
        if not self._normals:
            raise FileNotFoundError(f"{folder / split / 'norm'} is empty; expected:\n{LAYOUT}")

    @property
    def keys(self) -> list[str]:
        """Stems of the files."""
        return [path.stem for path in self._normals]

    def __len__(self) -> int:
        return len(self._normals)

    def __getitem__(self, index: int) -> DenseItem:
        path = self._normals[index]
        image = with_suffix_of(self._images, path.stem)
        return _pair(image, path)


class DsineNormals:
    """Pictures and unit normals of one split in the evaluation sets of DSINE (Bae 2024).

    `root` is dsine_eval, or the folder of one set in it (nyuv2, scannet, ...). Of nyuv2 the truth
    is GeoNet's, not Bae's of 2021; frame and coding are the same. `*_intrins.npy` is not read.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "dsine-normals") -> None:
        self.name = name
        self.kind = UnitVector()
        folder = Path(root)
        if (folder / "nyuv2").is_dir():
            folder = folder / "nyuv2"
        if not (folder / split).is_dir():
            known = {p.relative_to(folder).parts[0] for p in folder.glob("*/**/*_normal.png")}
            raise unknown_split(folder, split, sorted(known), DSINE_LAYOUT)
        self._normals = sorted((folder / split).rglob("*_normal.png"))
        if not self._normals:
            raise FileNotFoundError(
                f"{folder / split} holds no *_normal.png; expected:\n{DSINE_LAYOUT}"
            )

    def __len__(self) -> int:
        return len(self._normals)

    def __getitem__(self, index: int) -> DenseItem:
        path = self._normals[index]
        image = with_suffix_of(path.parent, path.stem.removesuffix("_normal") + "_img")
        return _pair(image, path)


def _pair(image: Path, path: Path) -> DenseItem:
    pixels, normals = (read_image(file, upright=False) for file in (image, path))
    return paired(pixels, decode_normals(normals), image, path)


def decode_normals(rgb: np.ndarray) -> np.ndarray:
    """Unit normals (H, W, 3) float32 of an (H, W, 3) uint8 picture; black becomes (0, 0, 0)."""
    valid = rgb.any(-1, keepdims=True)  # (H, W, 1)
    normals = rgb.astype(np.float32) / 127.5 - 1
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(valid, normals / np.maximum(length, 1e-6), 0).astype(np.float32)
