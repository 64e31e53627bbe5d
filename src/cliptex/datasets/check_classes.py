"""Checks of ImageNet and Places365 as they lie on disk."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from cliptex.datasets import folders, imagenet, places
from cliptex.datasets.check_report import (
    CheckReport,
    Layout,
    Split,
    first_with,
    names_in,
    split_of,
)
from cliptex.datasets.imagenet import (
    CLASSES,
    META,
    FlatImageNet,
    class_folders,
    devkit,
    devkit_synsets,
    is_synset,
    refuse_unknown,
)
from cliptex.datasets.protocol import entries_of, other_files, read_lines

IMAGENET_SOURCE = (
    "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from "
    "image-net.org (login needed)"
)
IMAGENET_COUNTS = {"train": 1_281_167, "val": 50_000}
PLACES_SOURCE = (
    "filelist_places365-standard.tar, places365standard_easyformat or train_256/val_256 archives "
    "from places2.csail.mit.edu/download.html"
)
PLACES_COUNTS = {"train": 1_803_460, "val": 36_500}


def _check_imagenet(root: Path) -> CheckReport:
    """Pictures per class folder; a flat val needs the devkit."""
    report = CheckReport(kind="imagenet", path=root, source=IMAGENET_SOURCE)
    for name, official in IMAGENET_COUNTS.items():
        folder = root / name
        inside = class_folders(folder)
        classes = [entry for entry in inside if is_synset(entry)]
        if classes:
            _known(root, folder, inside, report)
            held = {synset: entries_of(folder / synset) for synset in classes}
            counts = {synset: len(has.pictures) for synset, has in held.items()}
            if others := [path for has in held.values() for path in has.others]:
                report.notes.append(f"{name}: {other_files(others)}")
            report.splits.append(Split(name=name, count=sum(counts.values()), official=official))
            empty = [synset for synset, count in counts.items() if not count]
            if empty:
                lost = f"pictures of {len(empty)} classes, such as {empty[0]}"
                report.missing.append(f"{name}: {lost}")
            if len(classes) != CLASSES:
                report.notes.append(f"{name}: {len(classes)} classes, ImageNet-1k has {CLASSES:,}")
        elif _pictures(folder):
            _flat(root, name, official, report)
        else:
            report.notes.append(f"no {name}")
    return report


def _known(root: Path, folder: Path, inside: list[str], report: CheckReport) -> None:
    """Whether a devkit, where there is one, knows all folders of a split."""
    meta = devkit(root) / META
    if meta.exists():
        try:
            refuse_unknown(folder, inside, devkit_synsets(meta), meta)
        except ValueError as error:
            report.missing.append(str(error))


def _flat(root: Path, name: str, official: int, report: CheckReport) -> None:
    try:
        count = len(FlatImageNet(root, name))
    except FileNotFoundError as error:
        absent = str(error).splitlines()[0]
        report.missing.append(f"{name} is flat, so its classes must come from the devkit: {absent}")
    except ValueError as error:
        report.missing.append(str(error))
    else:
        report.splits.append(Split(name=name, count=count, official=official))


def _pictures(folder: Path) -> int:
    return len(entries_of(folder).pictures) if folder.is_dir() else 0


def _check_places(root: Path) -> CheckReport:
    report = CheckReport(kind="places365", path=root, source=PLACES_SOURCE)
    for name, official in PLACES_COUNTS.items():
        lines = root / places.LISTS[name]
        found = [folder for f in places.FOLDERS[name] if (folder := root / f).is_dir()]
        if not lines.exists() or not found:
            parts = [] if lines.exists() else [lines.name]
            parts += [] if found else [" or ".join(places.FOLDERS[name])]
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
    return report


IMAGENET = Layout(
    text=f"{folders.LAYOUT}\n{imagenet.LAYOUT}",
    source=IMAGENET_SOURCE,
    find=lambda p: first_with(p, (), ("train/n????????", "val/n????????", "val/ILSVRC2012_val_*")),
    check=_check_imagenet,
)
PLACES365 = Layout(
    text=places.LAYOUT,
    source=PLACES_SOURCE,
    find=lambda p: first_with(p, (), ("categories_places365.txt",)),
    check=_check_places,
)
