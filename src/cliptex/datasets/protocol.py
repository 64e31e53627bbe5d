"""What every benchmark reader offers, and the few helpers that readers share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cliptex.labels.kinds import Kind
from cliptex.shards.images import IMAGE_SUFFIXES, decode_image

SPLIT_FIELDS = "`train_split` or `test_split`; zero-shot: `split`"


@dataclass(frozen=True)
class DenseItem:
    """One picture with its dense ground truth.

    `image` (H, W, 3) uint8 RGB; `target` in the array form of the dataset's kind, of the same
    height and width.
    """

    image: np.ndarray
    target: np.ndarray


class DenseDataset(Protocol):
    """Pictures with a dense ground truth of one kind, read one at a time.

    A reader whose splits may hold the same pictures (lists, or two names of one folder) also has
    `pictures`, a list of strings that are equal for the same picture in any split.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> DenseItem: ...


class LabelledImages(Protocol):
    """Pictures with one class each; an item is ((H, W, 3) uint8 RGB, class index)."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]: ...


@dataclass(frozen=True)
class DetectionItem:
    """One picture with its objects, crowds left out.

    `image` (H, W, 3) uint8 RGB; `boxes` (N, 4) float32 as left, top, right, bottom in pixels,
    inside the picture and at least one pixel wide and high; `labels` (N,) int64 from 1 (0 is the
    background); `masks` (N, H, W) uint8 of 0 and 1, None where they were not asked for.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None


class DetectionDataset(Protocol):
    """Pictures with boxes and masks of objects; label k is `classes[k - 1]`.

    `category_ids[k - 1]` is what the annotations call it. `ground_truth` gives COCO's dictionary
    (images, annotations with crowds, categories) of the pictures at `indices`, for scoring.
    """

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def category_ids(self) -> tuple[int, ...]: ...

    @property
    def image_ids(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def item(self, index: int, *, masks: bool) -> DetectionItem: ...

    def with_objects(self) -> list[int]: ...

    def ground_truth(self, indices: Sequence[int]) -> dict[str, list[dict[str, Any]]]: ...


class CaptionedImages(Protocol):
    """Pictures with any number of captions each; `captions[i]` belongs to `image(i)`."""

    @property
    def name(self) -> str: ...

    @property
    def captions(self) -> list[list[str]]: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray: ...


def read_image(path: Path, *, upright: bool = True) -> np.ndarray:
    """The picture at `path`, (H, W, 3) uint8 RGB; ValueError names a file that does not decode.

    upright: turned as EXIF says. Where masks or boxes belong to it, it must be False: they count
    pixels as they are stored.
    """
    try:
        return decode_image(path.read_bytes(), upright=upright)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def paired(
    image: np.ndarray, target: np.ndarray, image_source: object, target_source: object
) -> DenseItem:
    """The two as one item; ValueError names both sources where heights or widths differ."""
    (height, width), (rows, columns) = image.shape[:2], target.shape[:2]
    if (height, width) != (rows, columns):
        raise ValueError(
            f"{target_source} has {rows}x{columns} pixels (height x width), but its picture "
            f"{image_source} has {height}x{width}: take both from one release, neither resized"
        )
    return DenseItem(image=image, target=target)


def measured(depth: np.ndarray) -> np.ndarray:
    """Depths (H, W) float32 with NaN where they are not positive and finite: not measured."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 file, stripped; ValueError names a file of other bytes."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # with or without its mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    return [line.strip() for line in lines if line.strip()]


def read_names(path: Path) -> list[str]:
    """The lines of a list of class names; ValueError where there are none."""
    names = read_lines(path)
    refuse_empty(names, path, "no class name: list one a line, or remove the file")
    return names


def require(path: Path, layout: str) -> Path:
    """`path` itself; FileNotFoundError that shows the expected `layout` where it is absent."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected this layout:\n{layout}")
    return path


def refuse_empty(items: Sized, source: object, what: str = "no picture") -> None:
    """ValueError says that `source` holds none, where `items` are none."""
    if not len(items):
        raise ValueError(f"{source} holds {what}")


def unknown_split(where: object, split: str, known: Sequence[str], layout: str) -> Exception:
    """What to raise for a split that is not at `where`: a ValueError that lists the `known` ones.

    Without any, a FileNotFoundError that shows the `layout`.
    """
    if known:
        return ValueError(
            f"{where} has no split {split!r}, only {sorted(known)}: name one of them "
            f"({SPLIT_FIELDS})"
        )
    return FileNotFoundError(f"{where} has no split {split!r}, nor another; expected:\n{layout}")


@dataclass(frozen=True)
class Entries:
    """What lies in a folder, sorted by name: pictures, other files that are not hidden, folders."""

    pictures: list[Path]
    others: list[Path]
    folders: list[Path]


def entries_of(folder: Path) -> Entries:
    """What lies right in `folder`; a picture is a file with a suffix of `IMAGE_SUFFIXES`."""
    held = Entries([], [], [])
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            path = folder / entry.name
            if entry.is_dir():
                held.folders.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                held.pictures.append(path)
            elif not entry.name.startswith("."):
                held.others.append(path)
    return held


def other_files(left_out: Sequence[Path]) -> str:
    """How many files are no images by their suffix, of which suffixes, and one of them; or ""."""
    if not left_out:
        return ""
    kinds = Counter(path.suffix.lower() or "no suffix" for path in left_out)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{len(left_out)} files are not read as images ({counts}), such as {left_out[0]}"


def present(folder: Path, files: Sequence[str]) -> set[str]:
    """Which names, relative to `folder` as `files` are, lie in the same folders as `files`."""
    parents = {Path(file).parent for file in files}
    return {
        str(parent / entry.name)
        for parent in parents
        if (folder / parent).is_dir()
        for entry in (folder / parent).iterdir()
    }


def refuse_missing(folder: Path, files: Sequence[str], source: Path, remedy: str) -> None:
    """FileNotFoundError names pictures that `source` lists and `folder` lacks."""
    there = present(folder, files)
    missing = [file for file in files if file not in there]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(files)} images listed in {source} are missing, "
            f"beginning with {missing[:3]}; {remedy}"
        )


def real_paths(paths: Sequence[Path]) -> list[str]:
    """The files that `paths` lead to, links followed: equal strings are one file."""
    homes = {parent: os.path.realpath(parent) for parent in {path.parent for path in paths}}
    return [
        os.path.realpath(path) if path.is_symlink() else f"{homes[path.parent]}/{path.name}"
        for path in paths
    ]


def with_suffix_of(folder: Path, stem: str) -> Path:
    """The image file `folder/stem.*`; FileNotFoundError where no known suffix exists."""
    for suffix in IMAGE_SUFFIXES:
        if (path := folder / f"{stem}{suffix}").exists():
            return path
    raise FileNotFoundError(f"{folder / stem}: no file with a suffix of {IMAGE_SUFFIXES}")
