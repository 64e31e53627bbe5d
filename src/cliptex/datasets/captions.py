"""COCO's captions of one split, in the original layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliptex.datasets.protocol import (
    read_image,
    refuse_empty,
    refuse_missing,
    require,
    unknown_split,
)
from cliptex.shards.json_files import read_coco_captions

LAYOUT = """  ROOT/annotations/captions_SPLIT2017.json   (or 2014, or captions_SPLIT.json)
  ROOT/SPLIT2017/000000000139.jpg"""
YEARS = ("2017", "2014", "")


class CocoCaptions:
    """Pictures and captions of train or val; pictures without a caption are left out.

    Published retrieval numbers are on Karpathy's 5,000 test pictures (`Karpathy`), not on
    these. Pictures have five captions, a few six or seven: all of them count.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "coco-captions") -> None:
        self.name = name
        path, self._folder = _places(Path(root), split)
        captioned = read_captions(path)
        self.files = [file for file, captions in captioned if captions]
        self.captions = [captions for _, captions in captioned if captions]
        refuse_empty(self.files, path, "no picture with a caption")
        refuse_missing(self._folder, self.files, path, "complete the download")

    @staticmethod
    def splits_of(root: Path) -> list[str]:
        """The splits whose captions are there, by their short names."""
        found = [
            path.stem.removeprefix("captions_") for path in root.glob("annotations/captions_*.json")
        ]
        return sorted({name.removesuffix("2017").removesuffix("2014") for name in found})

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> np.ndarray:
        """Picture `index`, (H, W, 3) uint8 RGB."""
        return read_image(self._folder / self.files[index])


def read_captions(path: Path) -> list[tuple[str, list[str]]]:
    """File and captions of each picture that the JSON lists; ValueError where it is not COCO's.

    Files such as "./a.jpg" become "a.jpg", so that they compare equal.
    """
    content = read_coco_captions(path)
    captions: dict[int | str, list[str]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        if annotation["image_id"] not in captions:
            raise ValueError(
                f"{path}: a caption has image_id {annotation['image_id']!r}, which the file does "
                "not list among its images"
            )
        captions[annotation["image_id"]].append(annotation["caption"].strip())
    return [(str(Path(image["file_name"])), captions[image["id"]]) for image in content["images"]]


def _places(root: Path, split: str) -> tuple[Path, Path]:
    require(root, LAYOUT)
    for year in YEARS:
        path = root / "annotations" / f"captions_{split}{year}.json"
        if path.exists():
            return path, require(root / f"{split}{year}", LAYOUT)
    raise unknown_split(root / "annotations", split, CocoCaptions.splits_of(root), LAYOUT)
