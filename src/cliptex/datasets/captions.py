"""Pictures with captions: COCO's own files, and Karpathy's JSON (Flickr8k, Flickr30k, COCO)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.datasets.check_report import (
    Check,
    CheckReport,
    first_with,
    names_in,
    read_annotations,
    split_of,
)
from cliptex.datasets.protocol import (
    present,
    read_image,
    refuse_empty,
    refuse_missing,
    require,
    unknown_split,
)
from cliptex.files import parse_json
from cliptex.shards.json_files import read_coco_captions, read_karpathy

LAYOUT = """  ROOT/annotations/captions_SPLIT2017.json   (or 2014, or captions_SPLIT.json)
  ROOT/SPLIT2017/000000000139.jpg"""
YEARS = ("2017", "2014", "")
KARPATHY_LAYOUT = """  DATASET.json   ({"images": [{"filename", "split", "sentences": [{"raw"}]}]})
  images/FILENAME   (COCO: images/FILEPATH/FILENAME; or as the archives unpack, such as
                     flickr30k-images/FILENAME, or right beside the JSON)"""
SAME_AS_TRAIN = "restval"  # Karpathy's COCO split: validation pictures that everyone trains on
FOLDERS = ("images", "Images", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset")
LOOKED_FOR = 100  # of the listed pictures, to find the folder that they are in
# Splits of Karpathy and Fei-Fei 2015; `restval` of COCO counts as train.
CAPTION_COUNTS: dict[str, dict[str, int]] = {
    "flickr30k": {"train": 29_000, "val": 1_014, "test": 1_000},
    "flickr8k": {"train": 6_000, "val": 1_000, "test": 1_000},
    "coco": {"train": 113_287, "val": 5_000, "test": 5_000},
}


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
        path = require(Path(file), KARPATHY_LAYOUT)
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
            raise unknown_split(path, split, known, KARPATHY_LAYOUT)
        found = images_folder(path, self.files) if images is None else Path(images)
        self._images = require(found, KARPATHY_LAYOUT)
        remedy = "name the folder they are in with `images`, or complete the download"
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


def _check_captions(report: CheckReport) -> None:
    folder = report.path
    for name, official in report.official.items():
        path = folder / "annotations" / f"captions_{name}.json"
        if not path.exists() and name.endswith("2014"):
            continue  # who has 2017 has no use for it
        content = read_annotations(path, read_captions, report)
        if content is None:
            continue
        listed = [file for file, texts in content if texts]
        there = names_in(folder / name)
        report.splits.append(split_of(name, listed, there, official, folder / name))


CHECK = Check(
    text=LAYOUT,
    find=lambda p: first_with(p, ("coco",), ("annotations/captions_*.json",)),
    fill=_check_captions,
)


def _check_karpathy(report: CheckReport) -> None:
    path = report.path
    try:
        content = read_karpathy(path)
    except ValueError as error:
        report.missing.append(str(error).splitlines()[0])
        return
    official = CAPTION_COUNTS.get(content.get("dataset") or "", {})
    listed: defaultdict[str, list[str]] = defaultdict(list)
    counts: Counter[int] = Counter()
    for entry in content["images"]:
        split = "train" if entry["split"] == SAME_AS_TRAIN else entry["split"]
        listed[split].append(file_of(entry))
        counts[len(entry["sentences"])] += 1
    everything = [file for files in listed.values() for file in files]
    folder = images_folder(path, everything)
    there = present(folder, everything)
    for name, files in listed.items():
        report.splits.append(split_of(name, files, there, official.get(name), folder))
    if any(split.absent for split in report.splits):
        report.notes.append(
            f"pictures were looked for in {folder}; `images` of zero-shot names another folder"
        )
    odd = {count: pictures for count, pictures in sorted(counts.items()) if count != 5}
    for count, pictures in odd.items():
        report.notes.append(f"{pictures:,} pictures with {count} captions")


def _find_karpathy(path: Path) -> Path | None:
    """The JSON itself: `path`, or the first *.json in it with pictures and splits.

    A damaged one counts where it is `path`, or is called as Karpathy calls his.
    """
    if path.is_file():
        return path if path.suffix == ".json" and _has_splits(path) is not False else None
    found = {file: _has_splits(file) for file in sorted(path.glob("*.json"))}
    damaged = (f for f, has in found.items() if has is None and f.name.startswith("dataset"))
    return next((file for file, has in found.items() if has), next(damaged, None))


def _has_splits(file: Path) -> bool | None:
    """Whether a JSON is Karpathy's; None where it is damaged."""
    try:
        content = parse_json(file.read_bytes())
    except ValueError:
        return None
    images = content.get("images") if isinstance(content, dict) else None
    first = images[0] if isinstance(images, list) and images else None
    return isinstance(first, dict) and {"split", "sentences"} <= set(first)


KARPATHY_CHECK = Check(text=KARPATHY_LAYOUT, find=_find_karpathy, fill=_check_karpathy)
