"""SBD, the extra masks of VOC's pictures (Hariharan et al. 2011), as benchmark_RELEASE unpacks."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from cliptex.datasets.mat import read_mat
from cliptex.datasets.protocol import read_lines, require

NAME = "benchmark_RELEASE"
LAYOUT = f"""  {NAME}/dataset/cls/KEY.mat   (GTcls.Segmentation: 0 = background, 1..20)
  {NAME}/dataset/train.txt and val.txt   (8,498 and 2,857 keys)"""


class Sbd:
    """Class maps by key; boundaries are not marked, so no pixel is 255."""

    def __init__(self, root: Path) -> None:
        self._folder = require(root / "dataset" / "cls", LAYOUT).parent

    def keys(self) -> list[str]:
        """SBD's own train and val, in that order: both contain pictures of VOC's val."""
        return list(self._keys)

    @cached_property
    def _keys(self) -> list[str]:
        lists = [require(self._folder / f"{part}.txt", LAYOUT) for part in ("train", "val")]
        return [key for path in lists for key in read_lines(path)]

    def path(self, key: str) -> Path:
        """The file of one mask."""
        return self._folder / "cls" / f"{key}.mat"

    def mask(self, key: str) -> np.ndarray:
        """Class ids (H, W) uint8; ValueError where the file is not SBD's."""
        path = require(self.path(key), LAYOUT)
        content = read_mat(path, squeeze_me=True, struct_as_record=False)
        if "GTcls" not in content:
            raise ValueError(f"{path} has no 'GTcls'; expected:\n{LAYOUT}")
        return np.ascontiguousarray(content["GTcls"].Segmentation, dtype=np.uint8)


def find_sbd(voc: Path) -> Sbd | None:
    """SBD in VOC2012, beside it (in VOCdevkit), or beside VOCdevkit; None where it is not there."""
    places = (voc, voc.parent, voc.parent.parent)
    return next((Sbd(place / NAME) for place in places if (place / NAME).is_dir()), None)
