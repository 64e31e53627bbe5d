"""COCO's instances as class maps of VOC's 21 classes, and sets joined to one (VOC with COCO)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from cliptex.datasets.coco import CocoInstances, read_mask
from cliptex.datasets.protocol import DenseDataset, DenseItem
from cliptex.datasets.voc import IGNORE, VOC_CLASSES
from cliptex.labels.kinds import ClassMap

# The six of VOC's 20 classes that COCO calls otherwise.
COCO_WORDS = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


class CocoAsVoc:
    """COCO's pictures with VOC's classes, as the CLIPTeX authors' library maps them.

    Where objects overlap, the one that the file lists first keeps the pixel; crowds count as
    their class; objects of COCO's other 60 classes are background. No pixel is ignored, unlike
    in VOC, whose outlines are 255.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "coco-voc") -> None:
        self.name = name
        self.kind = ClassMap(VOC_CLASSES, IGNORE)
        self._coco = CocoInstances(root, split)
        self.pictures = self._coco.pictures
        number_of = dict(zip(self._coco.classes, self._coco.category_ids, strict=True))
        words = {COCO_WORDS.get(c, c): k for k, c in enumerate(VOC_CLASSES) if k}
        self._ids = {number_of[word]: k for word, k in words.items() if word in number_of}

    @staticmethod
    def splits_of(root: Path) -> list[str]:
        """The splits that have annotations, by their short names."""
        return CocoInstances.splits_of(root)

    def __len__(self) -> int:
        return len(self._coco)

    def __getitem__(self, index: int) -> DenseItem:
        image = self._coco.item(index, masks=False).image
        height, width = image.shape[:2]
        target = np.zeros((height, width), np.uint8)
        for annotation in self._coco.ground_truth([index])["annotations"]:
            label = self._ids.get(annotation["category_id"], 0)
            if label:
                mask = read_mask(annotation, height, width, self._coco.place)
                target[(target == 0) & (mask > 0)] = label
        return DenseItem(image=image, target=target)


class JoinedDense:
    """Several sets of one kind, one after another; ValueError where their kinds differ.

    `joined` are the names of the sets.
    """

    def __init__(self, parts: Sequence[DenseDataset], *, name: str | None = None) -> None:
        kinds = {str(part.kind) for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"sets of different kinds cannot be joined: {sorted(kinds)}")
        self.name = name or "+".join(part.name for part in parts)
        self.kind = parts[0].kind
        self.pictures = [picture for part in parts for picture in getattr(part, "pictures", ())]
        self.joined = [part.name for part in parts]
        self._parts = list(parts)
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> DenseItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]
