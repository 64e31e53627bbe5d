"""COCO's captions of one split, in the original layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliptex.datasets.protocol import read_image, read_json, refuse_missing, require

LAYOUT = """  ROOT/annotations/captions_SPLIT2017.json   (or 2014, or captions_SPLIT.json)
  ROOT/SPLIT2017/000000000139.jpg"""
PARTS = ("images", "annotations")
YEARS = ("2017", "2014", "")


class CocoCaptions:
    """Pictures and captions of train or val; pictures without a caption are left out.

    Published retrieval numbers are on Karpathy's 5,000 test pictures (`Karpathy`), not on
    these. Pictures have five captions, a few six or seven: all of them count.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "coco-captions") -> None:
        self.name = name
        path, self._folder = _places(Path(root), split)
        content = read_json(path, LAYOUT, PARTS)
        captions: dict[int, list[str]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            if "caption" not in annotation:
                raise ValueError(f"{path} holds no captions, but other annotations")
            captions[annotation["image_id"]].append(annotation["caption"].strip())
        kept = [image for image in content["images"] if captions[image["id"]]]
        self.files = [str(image["file_name"]) for image in kept]
        self.captions = [captions[image["id"]] for image in kept]
        refuse_missing(self._folder, self.files, path, "complete the download")

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> np.ndarray:
        """Picture `index`, (H, W, 3) uint8 RGB."""
        return read_image(self._folder / self.files[index])


def _places(root: Path, split: str) -> tuple[Path, Path]:
    require(root, LAYOUT)
    for year in YEARS:
        path = root / "annotations" / f"captions_{split}{year}.json"
        if path.exists():
            return path, require(root / f"{split}{year}", LAYOUT)
    raise FileNotFoundError(f"{root}: no captions of split {split!r}; expected:\n{LAYOUT}")
