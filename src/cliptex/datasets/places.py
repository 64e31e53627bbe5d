"""Places365-Standard in the layout of its archives, with the lists of filelist_places365."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from cliptex.datasets.check_report import (
    Check,
    CheckReport,
    Split,
    first_with,
    names_in,
    split_of,
)
from cliptex.datasets.protocol import (
    read_image,
    read_lines,
    refuse_empty,
    require,
    unknown_split,
)

LAYOUT = """  ROOT/categories_places365.txt     ("/a/airfield 0" a line)
  ROOT/places365_train_standard.txt  ("/a/airfield/00000001.jpg 0" a line)
  ROOT/places365_val.txt             ("Places365_val_00000001.jpg 165" a line)
  ROOT/data_256_standard/a/airfield/00000001.jpg   (or data_large_standard)
  ROOT/val_256/Places365_val_00000001.jpg          (or val_large)"""
LISTS = {"train": "places365_train_standard.txt", "val": "places365_val.txt"}
FOLDERS = {
    "train": ("data_256_standard", "data_large_standard"),
    "val": ("val_256", "val_large"),
}


class Places365:
    """Pictures of train or val; classes are numbered as in categories_places365.txt.

    Those are the folders in sorted order of their full paths, but not of their last parts, so
    that a folder per class (as other tools unpack it) numbers them otherwise. Class names are the
    paths without the initial: "/a/apartment_building/outdoor" is "apartment building outdoor".
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "places365") -> None:
        if split not in LISTS:
            raise unknown_split("places365 with labels", split, list(LISTS), LAYOUT)
        self.name = name
        root = Path(root)
        self._folder = places_folder(root, split)
        paths = places_paths(require(root / "categories_places365.txt", LAYOUT))
        self.classes = tuple(path[3:].replace("/", " ").replace("_", " ") for path in paths)
        path = require(root / LISTS[split], LAYOUT)
        self.files = _listed(path, len(paths))
        refuse_empty(self.files, path)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        file, label = self.files[index]
        return read_image(self._folder / file), label


def places_folder(root: Path, split: str) -> Path:
    """Where the pictures of a split lie, small or large; FileNotFoundError shows the layout."""
    small, large = (root / folder for folder in FOLDERS[split])
    return large if large.is_dir() and not small.is_dir() else require(small, LAYOUT)


def places_paths(table: Path) -> list[str]:
    """The classes' paths ("/a/airfield") by number."""
    return [file for file, _ in sorted(_pairs(table), key=lambda pair: pair[1])]


def _listed(path: Path, classes: int) -> list[tuple[str, int]]:
    pairs = _pairs(path)
    wrong = next((pair for pair in pairs if not 0 <= pair[1] < classes), None)
    if wrong is not None:
        raise ValueError(f"{path}: class {wrong[1]} of {wrong[0]}, expected 0 to {classes - 1}")
    return [(file.lstrip("/"), label) for file, label in pairs]


def _pairs(path: Path) -> list[tuple[str, int]]:
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.rsplit(maxsplit=1)
        if len(words) != 2 or not words[1].isdigit():
            raise ValueError(
                f"{path}, line {number}: expected a path and a class, got {line!r} (the list of "
                "the test split has no classes)"
            )
        pairs.append((words[0], int(words[1])))
    return pairs


def _check(report: CheckReport) -> None:
    root = report.path
    for name, official in report.official.items():
        lines = root / LISTS[name]
        found = [folder for f in FOLDERS[name] if (folder := root / f).is_dir()]
        if not lines.exists() or not found:
            parts = [] if lines.exists() else [lines.name]
            parts += [] if found else [" or ".join(FOLDERS[name])]
            kept = report.notes if len(parts) == 2 else report.missing  # half a split is of no use
            kept.append(f"{name}: {' and '.join(parts)}")
            continue
        by_folder: defaultdict[str, list[str]] = defaultdict(list)
        for line in read_lines(lines):
            parent, _, file = line.split()[0].lstrip("/").rpartition("/")
            by_folder[parent].append(file)
        parts_of = [
            split_of(name, files, names_in(found[0] / parent), None, found[0] / parent)
            for parent, files in by_folder.items()
        ]
        lacking = [part for part in parts_of if part.absent]
        report.splits.append(
            Split(
                name=name,
                count=sum(part.count for part in parts_of),
                official=official,
                absent=sum(part.absent for part in lacking),
                example=lacking[0].example if lacking else "",
            )
        )


CHECK = Check(
    text=LAYOUT,
    find=lambda p: first_with(p, (), ("categories_places365.txt",)),
    fill=_check,
)
