"""Labelled images as an ordinary `torch.utils.data.Dataset`, for a trainer of one's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cliptex.console import say
from cliptex.data.joined import check_same_images, collate_labels, view_label
from cliptex.data.sampler import Size
from cliptex.data.transforms import Augmentation, View, draw_view, view_image
from cliptex.files import AnyPath
from cliptex.labels.kinds import Kind
from cliptex.labels.reader import LabelReader, StoredLabel
from cliptex.labels.sampling import WHOLE
from cliptex.losses import DenseTargets
from cliptex.shards.captions import CaptionError
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image

Example = tuple[Tensor, str, dict[str, Tensor | None]]
"""An image, its text, and its labels by name."""
CONFIDENCE = ":confidence"


class LabelledImages(Dataset[Any]):
    """Image-text shards joined with label stores: `dataset[i]` is (image, text, labels).

    - image: (3, H, W) uint8 RGB, upright.
    - text: the captions, one per line; "" where there is none.
    - labels: name -> tensor, or None where the image has no label (yet):
      class map (H, W) uint8 (int32 above 255 classes) with the kind's `ignore` id;
      scalar field (H, W) float32 in the kind's unit, NaN where invalid;
      normals (3, H, W) float32, (0, 0, 0) where invalid.
      For the names in `confidence` also "NAME:confidence", (H, W) float32 in [0, 1] or None.

    It works in any number of `DataLoader` workers, forked or spawned. Crops and flips are drawn
    from torch's generator, which `DataLoader` seeds for each worker and epoch. A sample
    whose image or caption cannot be read is named, and the next readable sample takes its place.

    Args:
        shards: the folder of image-text tars, or those already opened.
        labels: name -> `LABELS/EXPERT`, a folder or an open reader.
        size: (height, width) of everything returned; by default the image's own.
        augmentation: crop and flip, the same for an image and its labels; needs `size`. Without
            it the whole image is resized to `size`.
        stored_size: give labels at the size at which they are stored; excludes `size`.
        normalise: give scalar fields as (value - shift) / scale, by the median and the mean
            absolute deviation of the whole image: what the depth loss of the paper reads.
        confidence: names whose stored confidence is given too.
        transform: called last, with (image, text, labels); its result is what is returned.

    Raises ValueError where a store belongs to other images, a name in `confidence` has none, or
    arguments exclude each other.
    """

    def __init__(
        self,
        shards: str | AnyPath | ImageTextShards,
        labels: Mapping[str, str | AnyPath | LabelReader],
        *,
        size: Size | None = None,
        augmentation: Augmentation | None = None,
        stored_size: bool = False,
        normalise: bool = False,
        confidence: Collection[str] = (),
        transform: Callable[[Tensor, str, dict[str, Tensor | None]], Any] | None = None,
    ) -> None:
        if size is None and augmentation is not None:
            raise ValueError("augmentation: crops need a size; say size=(height, width)")
        if size is not None and stored_size:
            raise ValueError("stored_size: labels have either their stored size or `size`")
        self.shards = shards if isinstance(shards, ImageTextShards) else ImageTextShards(shards)
        self.readers = {name: _open(place) for name, place in labels.items()}
        for reader in self.readers.values():
            check_same_images(reader, self.shards)
        self.size, self.augmentation, self.stored_size = size, augmentation, stored_size
        self.normalise, self.transform = normalise, transform
        self.confidence = frozenset(confidence)
        for name in sorted(self.confidence):
            if name not in self.readers or not self.readers[name].manifest.confidence:
                raise ValueError(f"confidence: there are no labels {name!r} with a stored one")

    @property
    def kinds(self) -> dict[str, Kind]:
        """What each label is: its classes, unit or frame."""
        return {name: reader.kind for name, reader in self.readers.items()}

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, i: int) -> Any:
        shard, key, pixels, text = self._readable(i)
        height, width = pixels.shape[:2]
        view, size = self._view(height, width), self.size or (height, width)
        image = np.ascontiguousarray(view_image(pixels, view, size).transpose(2, 0, 1))
        labels: dict[str, Tensor | None] = {}
        for name, reader in self.readers.items():
            wanted = name in self.confidence
            stored = reader.read(shard, key, confidence=wanted)
            if stored is not None:
                stored = self._seen(stored, reader.kind, view, size)
            labels[name] = None if stored is None else _as_tensor(stored.array)
            if wanted:
                known = None if stored is None else stored.confidence
                labels[name + CONFIDENCE] = None if known is None else torch.from_numpy(known)
        if self.transform is None:
            return torch.from_numpy(image), text, labels
        return self.transform(torch.from_numpy(image), text, labels)

    def collate(
        self, batch: Sequence[Example]
    ) -> tuple[Tensor, tuple[str, ...], dict[str, DenseTargets]]:
        """Examples of one size as a batch: images (B, 3, H, W), texts, and targets by name.

        Targets say which labels are missing (`present`), which pixels count (`valid`) and how
        much (`weight`, for the names in `confidence`). For `DataLoader(..., collate_fn=...)`.
        Raises ValueError where sizes differ.
        """
        images, texts, labels = zip(*batch, strict=True)
        sizes = {tuple(x.shape[-2:]) for x in images} | {
            tuple(x.shape[-2:]) for found in labels for x in found.values() if x is not None
        }
        if len(sizes) > 1:
            raise ValueError(
                f"a batch needs one size, but these examples have {sorted(sizes)}: open the "
                "images with size=(height, width)"
            )
        (size,) = sizes
        targets = {
            name: collate_labels([_as_stored(found, name) for found in labels], kind, size)
            for name, kind in self.kinds.items()
        }
        return torch.stack(images), texts, targets

    def _readable(self, i: int) -> tuple[str, str, np.ndarray, str]:
        """Shard, key, pixels and text of sample `i`, or of the next one that can be decoded."""
        total = len(self)
        if not -total <= i < total:
            raise IndexError(f"sample {i} of {total}")
        for attempt in range(total):
            shard, key = self.shards.locate((i + attempt) % total)
            try:
                sample = self.shards.read(shard, key)
                return shard, key, decode_image(sample.image), sample.text
            except (ImageError, CaptionError) as error:
                say(f"{shard}:{key}: {error}; the next readable sample takes its place")
        raise ValueError(
            f"{self.shards.root}: none of the {total} images can be read, as said above"
        )

    def _view(self, height: int, width: int) -> View:
        if self.augmentation is None:
            return View(WHOLE, flip=False)
        seed = torch.randint(2**62, (2,)).tolist()
        return draw_view(height, width, self.augmentation, np.random.default_rng(seed))

    def _seen(self, stored: StoredLabel, kind: Kind, view: View, size: Size) -> StoredLabel:
        if self.normalise:
            values = kind.normalise(stored.array, stored.shift, stored.scale)
            stored = replace(stored, array=values)
        return stored if self.stored_size else view_label(stored, kind, view, size)


def _open(place: str | AnyPath | LabelReader) -> LabelReader:
    return place if isinstance(place, LabelReader) else LabelReader(place)


def _as_tensor(array: np.ndarray) -> Tensor:
    """(H, W) as it is, (H, W, C) as (C, H, W)."""
    if array.ndim == 3:
        array = array.transpose(2, 0, 1)
    elif array.dtype == np.uint16:
        array = array.astype(np.int32)
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # decoded PNGs: read-only


def _as_stored(labels: Mapping[str, Tensor | None], name: str) -> StoredLabel | None:
    """What `collate_labels` reads; without statistics, which have been used where asked for."""
    label, confidence = labels[name], labels.get(name + CONFIDENCE)
    if label is None:
        return None
    array = label.permute(1, 2, 0).numpy() if label.ndim == 3 else label.numpy()
    known = None if confidence is None else confidence.numpy()
    return StoredLabel(array, shift=None, scale=None, confidence=known)
