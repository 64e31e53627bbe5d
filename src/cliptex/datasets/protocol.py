"""What every benchmark reader offers, and the few helpers that readers share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from cliptex.labels.kinds import Kind
from cliptex.shards.images import decode_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class DenseItem:
    """One picture with its dense ground truth.

    `image` (H, W, 3) uint8 RGB; `target` in the array form of the dataset's kind, of the same
    height and width.
    """

    image: np.ndarray
    target: np.ndarray


class DenseDataset(Protocol):
    """Pictures with a dense ground truth of one kind, read one at a time."""

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


def read_image(path: Path) -> np.ndarray:
    """The picture at `path`, (H, W, 3) uint8 RGB; ValueError names a file that does not decode."""
    try:
        return decode_image(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_ids(path: Path) -> np.ndarray:
    """Class ids (H, W) of a palette or grey PNG: the stored indices, not the palette's colours."""
    return decode_ids(path.read_bytes(), str(path))


def decode_ids(data: bytes, source: str) -> np.ndarray:
    """Class ids (H, W) uint8 or uint16 of a PNG's bytes; `source` is named where it has none."""
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode not in ("P", "L", "I", "I;16"):
            raise ValueError(
                f"{source}: a mask of mode {picture.mode!r}; expected a palette or grey PNG "
                "whose pixel values are class ids (do not convert masks to RGB)"
            )
        ids = np.array(picture)
    return ids if ids.dtype == np.uint8 else ids.astype(np.uint16)


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 file, stripped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def require(path: Path, layout: str) -> Path:
    """`path` itself; FileNotFoundError that shows the expected `layout` where it is absent."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected this layout:\n{layout}")
    return path


def with_suffix_of(folder: Path, stem: str) -> Path:
    """The image file `folder/stem.*`; FileNotFoundError where no known suffix exists."""
    for suffix in IMAGE_SUFFIXES:
        if (path := folder / f"{stem}{suffix}").exists():
            return path
    raise FileNotFoundError(f"{folder / stem}: no file with a suffix of {IMAGE_SUFFIXES}")
