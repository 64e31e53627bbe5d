"""ImageNet-1k: readable names of its synsets, and its archives as they unpack, with the devkit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from cliptex.console import say
from cliptex.datasets.check_report import (
    Check,
    CheckReport,
    Split,
    first_with,
)
from cliptex.datasets.mat import read_mat
from cliptex.datasets.protocol import (
    entries_of,
    other_files,
    read_image,
    read_lines,
    real_paths,
    refuse_empty,
    require,
    unknown_split,
)

SYNSET = re.compile(r"n\d{8}")  # WordNet's number of a noun, as ImageNet calls its folders
CLASSES = 1000
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
LAYOUT = f"""  ROOT/train/n01440764/*.JPEG   (a folder per synset)
  ROOT/val/ILSVRC2012_val_00000001.JPEG ...   (flat, as the archive unpacks, or as train is)
  ROOT/ILSVRC2012_devkit_t12/data/{META}
  ROOT/ILSVRC2012_devkit_t12/data/{TRUTH}   (of a flat split)
  without the devkit, where all splits have a folder per synset: the layout folder"""


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
    """ImageNet-1k as its archives unpack, with the devkit: train in folders of synsets, val flat.

    `meta.mat` numbers the classes (ILSVRC2012_ID 1 to 1000) in an order of its own. The ground
    truth of a flat split uses those numbers, a line per picture in the order of the file names; a
    folder is called by its synset. Either way labels are those of the devkit's sorted synsets,
    `folders`, as everywhere else, so those of train and val agree; `classes` are their names, also
    those of synsets that a split has no picture of.

    Raises:
        FileNotFoundError: shows the layout where the devkit is missing.
        ValueError: for a folder that is no synset of the devkit, pictures beside such folders, or
            a ground truth of another number of pictures.
    """

    def __init__(self, root: str | Path, split: str = "val", *, name: str = "imagenet") -> None:
        self.name = name
        folder = Path(root) / split
        if not folder.is_dir():
            raise unknown_split(root, split, _splits(Path(root)), LAYOUT)
        data = require(devkit(Path(root)), LAYOUT)
        self.place = str(folder)
        meta = require(data / META, LAYOUT)
        synsets = devkit_synsets(meta)
        self.folders = tuple(sorted(synsets))
        known = imagenet_names()
        self.classes = tuple(known.get(synset, synset) for synset in self.folders)
        held, inside = entries_of(folder), class_folders(folder)
        flat, left_out = held.pictures, held.others
        if inside:
            refuse_unknown(folder, inside, synsets, meta)
            if flat:
                raise ValueError(
                    f"{folder} holds {len(flat)} pictures beside class folders, such as "
                    f"{flat[0].name}: move each into the folder of its synset, or all out"
                )
            self.files, others = _sorted_into(folder, inside, self.folders)
            left_out = left_out + others
        else:
            self.files = _told(folder, flat, require(data / TRUTH, LAYOUT), synsets)
        if left_out:
            say(f"{folder}: {other_files(left_out)}")

    @property
    def pictures(self) -> list[str]:
        """What tells the pictures apart over all splits: their files, links followed."""
        return real_paths([path for path, _ in self.files])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path, label = self.files[index]
        return read_image(path), label


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted, but for hidden ones."""
    return sorted(path.name for path in folder.glob("[!.]*") if path.is_dir())


def refuse_unknown(folder: Path, inside: Sequence[str], synsets: Sequence[str], meta: Path) -> None:
    """ValueError names a folder `inside` `folder` that is none of the `synsets` of `meta`."""
    odd = sorted(set(inside) - set(synsets))
    if odd:
        raise ValueError(
            f"{folder / odd[0]} is none of the {len(synsets)} synsets of {meta} ({len(odd)} such "
            "folders): take them out, or read folders of other classes with the layout folder"
        )


def devkit(root: Path) -> Path:
    """The folder of meta.mat and the ground truth: in the devkit as unpacked, or `root/data`."""
    unpacked = root / "ILSVRC2012_devkit_t12" / "data"
    return root / "data" if (root / "data" / META).exists() else unpacked


def devkit_synsets(meta: Path) -> list[str]:
    """The synsets of ILSVRC2012_ID 1, 2, ...; ValueError where meta.mat is another file."""
    content = read_mat(meta, squeeze_me=True)
    if "synsets" not in content:
        raise ValueError(f"{meta} has no 'synsets': take meta.mat of ILSVRC2012_devkit_t12")
    rows = content["synsets"]
    found = {int(r["ILSVRC2012_ID"]): str(r["WNID"]) for r in rows if int(r["num_children"]) == 0}
    return [found[number] for number in sorted(found)]


def _splits(root: Path) -> list[str]:
    marks = ("*/ILSVRC2012_*.JPEG", "*/n????????")
    return sorted({path.parent.name for mark in marks for path in root.glob(mark)})


def _sorted_into(
    folder: Path, inside: Sequence[str], synsets: Sequence[str]
) -> tuple[list[tuple[Path, int]], list[Path]]:
    """Pictures of a folder per synset, with the rank of the synset; and files that are none."""
    ranks = {synset: rank for rank, synset in enumerate(synsets)}
    held = {synset: entries_of(folder / synset) for synset in inside}
    files = [(path, ranks[synset]) for synset, has in held.items() for path in has.pictures]
    refuse_empty(files, folder, "no picture in its class folders: unpack the archive of each")
    return files, [path for has in held.values() for path in has.others]


def _told(
    folder: Path, paths: list[Path], truth: Path, synsets: Sequence[str]
) -> list[tuple[Path, int]]:
    """Pictures of a flat folder, with what the ground truth says of each."""
    refuse_empty(paths, folder, "no .JPEG, nor a folder of a synset (n01440764)")
    labels = _labels(truth, synsets)
    if len(labels) != len(paths):
        raise ValueError(
            f"{truth} has {len(labels)} lines for the {len(paths)} pictures of {folder}: the "
            "lines belong to the pictures in the order of their names, so none may be missing"
        )
    return list(zip(paths, labels, strict=True))


def _labels(truth: Path, synsets: Sequence[str]) -> list[int]:
    ranks = {synset: rank for rank, synset in enumerate(sorted(synsets))}
    labels = []
    for number, line in enumerate(read_lines(truth), start=1):
        if not line.isdigit() or not 1 <= int(line) <= len(synsets):
            raise ValueError(f"{truth}, line {number}: {line!r}, expected 1 to {len(synsets)}")
        labels.append(ranks[synsets[int(line) - 1]])
    return labels


def _check(report: CheckReport) -> None:
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


CHECK = Check(
    text=LAYOUT,
    find=lambda p: first_with(p, (), ("train/n????????", "val/n????????", "val/ILSVRC2012_val_*")),
    fill=_check,
)
