"""Captioned pictures in Karpathy's JSON: Flickr8k, Flickr30k, COCO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.datasets.protocol import read_image, refuse_missing, require, unknown_split
from cliptex.shards.json_files import read_karpathy

LAYOUT = """  DATASET.json   ({"images": [{"filename", "split", "sentences": [{"raw"}]}]})
  images/FILENAME   (COCO: images/FILEPATH/FILENAME; or as the archives unpack, such as
                     flickr30k-images/FILENAME, or right beside the JSON)"""
SAME_AS_TRAIN = "restval"  # Karpathy's COCO split: validation pictures that everyone trains on
FOLDERS = ("images", "Images", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset")
LOOKED_FOR = 100  # of the listed pictures, to find the folder that they are in


class Karpathy:
    """Pictures and captions of one split (train, val, test; `restval` belongs to train).

    `images` is the folder of the pictures; None looks where `images_folder` says. `captions[i]`
    are the raw sentences of picture i; pictures without a sentence are left out.
    FileNotFoundError names the JSON and a picture that it lists and the folder lacks.
    """

    def __init__(
        self,
        file: str | Path,
        split: str,
        *,
        images: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        path = require(Path(file), LAYOUT)
        content = read_karpathy(path)
        splits = {split, SAME_AS_TRAIN} if split == "train" else {split}
        self.name = name or content.get("dataset") or path.stem
        self.files: list[str] = []
        self.captions: list[list[str]] = []
        for entry in content["images"]:
            sentences = [sentence["raw"] for sentence in entry["sentences"]]
            if entry["split"] in splits and sentences:
                self.files.append(file_of(entry))
                self.captions.append(sentences)
        if not self.files:
            known = sorted({entry["split"] for entry in content["images"] if entry["sentences"]})
            raise unknown_split(path, split, known, LAYOUT)
        found = images_folder(path, self.files) if images is None else Path(images)
        self._images = require(found, LAYOUT)
        remedy = "name the folder they are in with --images, or complete the download"
        refuse_missing(self._images, self.files, path, remedy)

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> np.ndarray:
        """Picture `index`, (H, W, 3) uint8 RGB."""
        return read_image(self._images / self.files[index])


def file_of(entry: dict[str, Any]) -> str:
    """The picture of an entry, relative to the folder of the pictures."""
    return str(Path(entry.get("filepath") or "") / entry["filename"])


def images_folder(path: Path, files: Sequence[str]) -> Path:
    """Where the pictures of the JSON at `path` lie, unless the user says so.

    The first usual folder beside it that has one of the first `files`, else the JSON's own.
    """
    usual = (path.parent / name for name in FOLDERS)
    tried = files[:LOOKED_FOR]
    has = (folder for folder in usual if any((folder / file).exists() for file in tried))
    return next(has, path.parent)
