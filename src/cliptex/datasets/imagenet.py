"""ImageNet-1k: readable names of its synsets, and the flat validation folder with its devkit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from cliptex.datasets.mat import read_mat
from cliptex.datasets.protocol import (
    read_image,
    read_lines,
    refuse_empty,
    require,
    unknown_split,
)

SYNSET = re.compile(r"n\d{8}")  # WordNet's number of a noun, as ImageNet calls its folders
CLASSES = 1000
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LAYOUT = f"""  ROOT/SPLIT/ILSVRC2012_val_00000001.JPEG ...   (flat, as the archive unpacks)
  ROOT/ILSVRC2012_devkit_t12/data/meta.mat
  ROOT/ILSVRC2012_devkit_t12/data/{TRUTH}"""


@cache
def imagenet_names() -> dict[str, str]:
    """Synset -> the name to prompt with, of the 1000 classes.

    The names are those of OpenAI's notebook, as open_clip keeps them (they tell "crane bird" from
    "construction crane"); they follow the sorted synsets, which timm lists.
    """
    from open_clip import IMAGENET_CLASSNAMES  # these two take seconds to import
    from timm.data.imagenet_info import ImageNetInfo

    synsets = ImageNetInfo("imagenet-1k").label_names()
    if synsets != sorted(synsets):
        raise RuntimeError("timm no longer lists ImageNet's synsets in their sorted order")
    return dict(zip(synsets, IMAGENET_CLASSNAMES, strict=True))


def is_synset(name: str) -> bool:
    """Whether `name` is a bare WordNet number such as n01440764."""
    return SYNSET.fullmatch(name) is not None


class FlatImageNet:
    """The 50,000 validation pictures in one folder, with the ground truth of the devkit.

    `meta.mat` numbers the classes (ILSVRC2012_ID 1 to 1000) in an order of its own, and the ground
    truth uses those numbers, a line per picture in the order of the file names. Labels here are
    those of the sorted synsets, as everywhere else.
    """

    def __init__(self, root: str | Path, split: str = "val", *, name: str = "imagenet") -> None:
        self.name = name
        folder = Path(root) / split
        if not folder.is_dir():
            raise unknown_split(root, split, _flat_splits(Path(root)), LAYOUT)
        data = require(devkit(Path(root)), LAYOUT)
        truth = require(data / TRUTH, LAYOUT)
        synsets = devkit_synsets(require(data / "meta.mat", LAYOUT))
        self.folders = tuple(sorted(synsets))
        known = imagenet_names()
        self.classes = tuple(known.get(synset, synset) for synset in self.folders)
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".JPEG")
        refuse_empty(paths, folder, "no .JPEG")
        labels = _labels(truth, synsets)
        if len(labels) != len(paths):
            raise ValueError(
                f"{truth} has {len(labels)} lines for the {len(paths)} pictures of {folder}: the "
                "lines belong to the pictures in the order of their names, so none may be missing"
            )
        self.files = list(zip(paths, labels, strict=True))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path, label = self.files[index]
        return read_image(path), label


def _flat_splits(root: Path) -> list[str]:
    return sorted({path.parent.name for path in root.glob("*/ILSVRC2012_*.JPEG")})


def devkit(root: Path) -> Path:
    """The folder of meta.mat and the ground truth: in the devkit as unpacked, or `root/data`."""
    unpacked = root / "ILSVRC2012_devkit_t12" / "data"
    return root / "data" if (root / "data" / TRUTH).exists() else unpacked


def devkit_synsets(meta: Path) -> list[str]:
    """The synsets of ILSVRC2012_ID 1, 2, ...; ValueError where meta.mat is another file."""
    content = read_mat(meta, squeeze_me=True)
    if "synsets" not in content:
        raise ValueError(f"{meta} has no 'synsets': take meta.mat of ILSVRC2012_devkit_t12")
    rows = content["synsets"]
    found = {int(r["ILSVRC2012_ID"]): str(r["WNID"]) for r in rows if int(r["num_children"]) == 0}
    return [found[number] for number in sorted(found)]


def _labels(truth: Path, synsets: Sequence[str]) -> list[int]:
    ranks = {synset: rank for rank, synset in enumerate(sorted(synsets))}
    labels = []
    for number, line in enumerate(read_lines(truth), start=1):
        if not line.isdigit() or not 1 <= int(line) <= len(synsets):
            raise ValueError(f"{truth}, line {number}: {line!r}, expected 1 to {len(synsets)}")
        labels.append(ranks[synsets[int(line) - 1]])
    return labels
