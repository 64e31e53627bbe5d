"""Checks of COCO and of Karpathy's caption sets as they lie on disk."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cliptex.datasets import captions, coco, karpathy
from cliptex.datasets.check_report import Check, CheckReport, first_with, names_in, split_of
from cliptex.datasets.karpathy import SAME_AS_TRAIN, file_of, images_folder, read_karpathy
from cliptex.datasets.protocol import present
from cliptex.files import parse_json

T = TypeVar("T")
# Splits of Karpathy and Fei-Fei 2015; `restval` of COCO counts as train.
CAPTION_COUNTS: dict[str, dict[str, int]] = {
    "flickr30k": {"train": 29_000, "val": 1_014, "test": 1_000},
    "flickr8k": {"train": 6_000, "val": 1_000, "test": 1_000},
    "coco": {"train": 113_287, "val": 5_000, "test": 5_000},
}


def _check_coco(report: CheckReport) -> None:
    folder = report.path
    for name, official in report.official.items():
        path = folder / "annotations" / f"instances_{name}.json"
        content = _annotations(path, coco.read_instances, report)
        if content is None:
            continue
        listed = [image["file_name"] for image in content["images"]]
        there = names_in(folder / name)
        report.splits.append(split_of(name, listed, there, official, folder / name))
        categories = len(content["categories"])
        if categories != 80:
            report.notes.append(f"{name}: {categories} categories, COCO has 80")
        bare = len(coco.without_mask(content))
        if bare:
            report.notes.append(f"{name}: {bare:,} objects without a mask: boxes (SSD) alone")
    if not report.splits and not report.missing:
        report.missing.append("annotations/instances_{train,val}2017.json")


def _check_captions(report: CheckReport) -> None:
    folder = report.path
    for name, official in report.official.items():
        path = folder / "annotations" / f"captions_{name}.json"
        if not path.exists() and name.endswith("2014"):
            continue  # who has 2017 has no use for it
        content = _annotations(path, captions.read_captions, report)
        if content is None:
            continue
        listed = [file for file, texts in content if texts]
        there = names_in(folder / name)
        report.splits.append(split_of(name, listed, there, official, folder / name))


def _annotations(path: Path, read: Callable[[Path], T], report: CheckReport) -> T | None:
    """What a file of COCO holds; None, said in the report, where it is absent or damaged."""
    if not path.exists():
        report.notes.append(f"no annotations/{path.name}")
        return None
    try:
        return read(path)
    except ValueError as error:
        report.missing.append(str(error).splitlines()[0])
        return None


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
        report.notes.append(f"looked for pictures in {folder}; --images of zeroshot names another")
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


COCO = Check(
    text=coco.LAYOUT,
    find=lambda p: first_with(p, ("coco",), ("annotations/*.json", "train2017", "val2017")),
    fill=_check_coco,
)
COCO_CAPTIONS = Check(
    text=captions.LAYOUT,
    find=lambda p: first_with(p, ("coco",), ("annotations/captions_*.json",)),
    fill=_check_captions,
)
KARPATHY = Check(text=karpathy.LAYOUT, find=_find_karpathy, fill=_check_karpathy)
