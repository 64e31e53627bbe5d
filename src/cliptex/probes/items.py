"""What probes read from data sets: anyone's items, refused by name where they do not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from cliptex.datasets.protocol import (
    DenseDataset,
    DenseItem,
    DetectionDataset,
    LabelledImages,
    refuse_empty,
)

DIGEST_PICTURES = 16

Probed = DenseDataset | LabelledImages | DetectionDataset


def dense_item(dataset: DenseDataset, index: int) -> DenseItem:
    """Item `index`; ValueError names set and index where picture or target are not as agreed."""
    item = dataset[index]
    where = f"{dataset.name}, item {index}"
    height, width = _size(item.image, where)
    shape = np.shape(item.target)
    if shape[:2] != (height, width):
        raise ValueError(
            f"{where}: a target of shape {shape}, but its picture has {height}x{width} pixels "
            "(height x width): give both one size"
        )
    return item


def class_item(dataset: LabelledImages, index: int) -> tuple[np.ndarray, int]:
    """Picture and class `index`; ValueError as of `dense_item`, or for an unknown class."""
    image, label = dataset[index]
    where = f"{dataset.name}, item {index}"
    _size(image, where)
    if not 0 <= label < len(dataset.classes):
        raise ValueError(f"{where}: class {label}, expected 0 to {len(dataset.classes) - 1}")
    return image, label


def _size(image: np.ndarray, where: str) -> tuple[int, int]:
    """Height and width of a picture."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ValueError(
            f"{where}: a picture of {array.dtype} {array.shape}, expected uint8 (H, W, 3) of RGB: "
            "convert it"
        )
    return array.shape[0], array.shape[1]


def check_sets(train: Probed, *others: Probed) -> None:
    """ValueError where a set of a probe is empty, or another differs from `train` in kind or
    classes."""
    for one in (train, *others):
        refuse_empty(one, place_of(one))
        refuse_unlike(_identity(train), _identity(one), (place_of(train), place_of(one)))


def _identity(dataset: Probed) -> object:
    return getattr(dataset, "kind", None) or getattr(dataset, "classes", None)


def place_of(dataset: Probed) -> str:
    """What messages call a set: the folder of its split where it says so, else its name."""
    return getattr(dataset, "place", dataset.name)


def refuse_unlike(train: object, other: object, places: tuple[str, str]) -> None:
    """ValueError where a training set and another, at `places`, differ in kind or classes."""
    if train == other:
        return
    if not isinstance(train, tuple) or not isinstance(other, tuple):
        raise ValueError(f"{places[1]} is {other}, {places[0]} is {train}: not the same kind")
    parts = [_only(train, other, places[0]), _only(other, train, places[1])]
    said = "; ".join(filter(None, parts)) or "they are in another order"
    raise ValueError(
        f"{places[0]} and {places[1]} do not have the same classes: {said}. Give both the same"
    )


def _only(classes: tuple[object, ...], others: tuple[object, ...], place: str) -> str:
    """Which of `classes` the others lack; "" for none."""
    extra = [one for one in classes if one not in set(others)]
    named = ", ".join(map(repr, extra[:5])) + (", ..." if len(extra) > 5 else "")
    return f"only {place} has {named} ({len(extra)} of {len(classes)})" if extra else ""


def digest_of(name: str, count: int, arrays: Callable[[int], Sequence[np.ndarray]]) -> str:
    """Of a set's name and size, and of the `arrays` of 16 of its pictures, evenly spread.

    Another split, order or ground truth under the same name has another digest.
    """
    rows = np.linspace(0, count - 1, min(count, DIGEST_PICTURES)).round().astype(int)
    found = hashlib.blake2b(f"{name} {count}".encode(), digest_size=16)
    for index in rows.tolist():
        for array in arrays(index):
            found.update(f"{array.shape} {array.dtype}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
