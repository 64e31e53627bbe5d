"""Checks of COCO and of Karpathy's caption sets as they lie on disk."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from cliptex.datasets import coco, karpathy
from cliptex.datasets.check_report import CheckReport, Layout, first_with, names_in, split_of
from cliptex.datasets.karpathy import SAME_AS_TRAIN

COCO_SOURCE = (
    "train2017.zip, val2017.zip and annotations_trainval2017.zip from cocodataset.org/#download"
)
COCO_COUNTS = {"train2017": 118_287, "val2017": 5_000}
CAPTION_SOURCE = (
    "caption_datasets.zip from cs.stanford.edu/people/karpathy/deepimagesent; pictures from "
    "cocodataset.org, or by the form of shannon.cs.illinois.edu/DenotationGraph for Flickr30k"
)
# Splits of Karpathy and Fei-Fei 2015; `restval` of COCO counts as train.
CAPTION_COUNTS: dict[str, dict[str, int]] = {
    "flickr30k": {"train": 29_000, "val": 1_014, "test": 1_000},
    "flickr8k": {"train": 6_000, "val": 1_000, "test": 1_000},
    "coco": {"train": 113_287, "val": 5_000, "test": 5_000},
}


def _check_coco(folder: Path) -> CheckReport:
    report = CheckReport(kind="coco", path=folder, source=COCO_SOURCE)
    for name, official in COCO_COUNTS.items():
        path = folder / "annotations" / f"instances_{name}.json"
        if not path.exists():
            report.notes.append(f"no annotations/instances_{name}.json")
            continue
        content = json.loads(path.read_bytes())
        listed = [str(image["file_name"]) for image in content["images"]]
        there = names_in(folder / name)
        report.splits.append(split_of(name, listed, there, official, folder / name))
        categories = len(content["categories"])
        if categories != 80:
            report.notes.append(f"{name}: {categories} categories, COCO has 80")
        if not (folder / "annotations" / f"captions_{name}.json").exists():
            report.notes.append(f"no annotations/captions_{name}.json (for retrieval only)")
    if not report.splits:
        report.missing.append("annotations/instances_{train,val}2017.json")
    return report


def _check_karpathy(path: Path) -> CheckReport:
    content = json.loads(path.read_text(encoding="utf-8"))
    official = CAPTION_COUNTS.get(str(content.get("dataset", "")), {})
    listed: defaultdict[str, list[str]] = defaultdict(list)
    captions: Counter[int] = Counter()
    for entry in content["images"]:
        split = "train" if entry["split"] == SAME_AS_TRAIN else entry["split"]
        listed[split].append(str(Path(entry.get("filepath", "")) / entry["filename"]))
        captions[len(entry.get("sentences", []))] += 1
    folder = path.parent / "images" if (path.parent / "images").is_dir() else path.parent
    parents = {Path(file).parent for files in listed.values() for file in files}
    there = {str(parent / name) for parent in parents for name in names_in(folder / parent)}
    report = CheckReport(kind="karpathy", path=path, source=CAPTION_SOURCE)
    for name, files in listed.items():
        report.splits.append(split_of(name, files, there, official.get(name), folder))
    odd = {count: pictures for count, pictures in sorted(captions.items()) if count != 5}
    for count, pictures in odd.items():
        report.notes.append(f"{pictures:,} pictures with {count} captions")
    return report


def _find_karpathy(path: Path) -> Path | None:
    """The JSON itself: `path`, or the first *.json in it with pictures and splits."""
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    return next((file for file in files if _has_splits(file)), None)


def _has_splits(file: Path) -> bool:
    try:
        content: Any = json.loads(file.read_bytes())
    except ValueError:
        return False
    images = content.get("images") if isinstance(content, dict) else None
    return bool(images) and isinstance(images[0], dict) and {"split", "sentences"} <= set(images[0])


COCO = Layout(
    text=coco.LAYOUT,
    source=COCO_SOURCE,
    find=lambda p: first_with(p, ("coco",), ("annotations/*.json", "train2017", "val2017")),
    check=_check_coco,
)
KARPATHY = Layout(
    text=karpathy.LAYOUT, source=CAPTION_SOURCE, find=_find_karpathy, check=_check_karpathy
)
