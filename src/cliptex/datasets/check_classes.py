"""Checks of ImageNet and Places365 as they lie on disk."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from cliptex.datasets import folders, imagenet, places
from cliptex.datasets.check_report import (
    Check,
    CheckReport,
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


def _check_imagenet(report: CheckReport) -> None:
    """Pictures per class folder; a flat val needs the devkit."""
    root = report.path
    for name, official in report.official.items():
        folder = root / name
        inside = class_folders(folder)
        classes = [entry for entry in inside if is_synset(entry)]
        if classes:
            _known(root, folder, inside, report)
            held = {synset: entries_of(folder / synset) for synset in classes}
            counts = {synset: len(has.pictures) for synset, has in held.items()}
            if others := [path for has in held.values() for path in has.others]:
                report.notes.append(f"{name}: {other_files(others)}")
            count = sum(counts.values())
            split = Split(name=name, count=count, official=official, layout="folder")
            report.splits.append(split)
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


def _check_places(report: CheckReport) -> None:
    root = report.path
    for name, official in report.official.items():
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


IMAGENET = Check(
    text=f"{folders.LAYOUT}\n{imagenet.LAYOUT}",
    find=lambda p: first_with(p, (), ("train/n????????", "val/n????????", "val/ILSVRC2012_val_*")),
    fill=_check_imagenet,
)
PLACES365 = Check(
    text=places.LAYOUT,
    find=lambda p: first_with(p, (), ("categories_places365.txt",)),
    fill=_check_places,
)
