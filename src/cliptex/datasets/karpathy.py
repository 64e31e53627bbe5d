"""Captioned pictures in Karpathy's JSON: Flickr8k, Flickr30k, COCO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cliptex.datasets.protocol import read_image, require

LAYOUT = """  DATASET.json   ({"images": [{"filename", "split", "sentences": [{"raw"}]}]})
  images/FILENAME   (COCO: images/FILEPATH/FILENAME)"""
SAME_AS_TRAIN = "restval"  # Karpathy's COCO split: validation pictures that everyone trains on


class Karpathy:
    """Pictures and captions of one split (train, val, test; `restval` belongs to train).

    `captions[i]` are the raw sentences of picture i; pictures without a sentence are left out.
    """

    def __init__(
        self, file: str | Path, images: str | Path, split: str, *, name: str | None = None
    ) -> None:
        path = require(Path(file), LAYOUT)
        self._images = require(Path(images), LAYOUT)
        content = json.loads(path.read_text(encoding="utf-8"))
        if "images" not in content:
            raise ValueError(f"{path} has no key 'images'; expected:\n{LAYOUT}")
        splits = {split, SAME_AS_TRAIN} if split == "train" else {split}
        self.name = name or content.get("dataset", path.stem)
        self.files: list[str] = []
        self.captions: list[list[str]] = []
        for entry in content["images"]:
            sentences = [sentence["raw"] for sentence in entry.get("sentences", [])]
            if entry["split"] in splits and sentences:
                self.files.append(str(Path(entry.get("filepath", "")) / entry["filename"]))
                self.captions.append(sentences)
        if not self.files:
            known = sorted({entry["split"] for entry in content["images"]})
            raise ValueError(f"{path} has no pictures of split {split!r}, only {known}")

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> np.ndarray:
        """Picture `index`, (H, W, 3) uint8 RGB."""
        return read_image(self._images / self.files[index])
