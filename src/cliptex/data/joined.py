"""Image-text samples joined with the labels of any number of experts by (shard, key).

A label that is missing costs the sample that task's loss alone: its targets are marked as not
present. An image that cannot be decoded is replaced by the next readable sample and named once.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from cliptex.console import say
from cliptex.data.cache import ByteBudgetCache
from cliptex.data.sampler import Sampler, Size, Step
from cliptex.data.transforms import Augmentation, View, draw_view, sample_generator, view_image
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.reader import LabelReader, StoredLabel
from cliptex.losses import DenseTargets
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image

_VIEW, _CAPTION = 0, 1  # purposes of the generators of a sample
SMALLEST_SCALE = 1e-6  # a constant depth map has spread 0; it then trains towards 0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one training step reads.

    images: (B, 3, H, W) uint8 RGB. captions: B texts. names: B times "shard:key".
    targets: per task the labels of the same crops at the images' size.
    """

    images: torch.Tensor
    captions: tuple[str, ...]
    names: tuple[str, ...]
    targets: dict[str, DenseTargets]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sample under one view: image (h, w, 3) uint8, labels in their kind's array form."""

    image: np.ndarray
    caption: str
    name: str
    labels: dict[str, StoredLabel | None]


@dataclass(frozen=True)
class _Decoded:
    """A sample whose image was readable."""

    shard: str
    key: str
    image: np.ndarray
    text: str


@dataclass(frozen=True, kw_only=True)
class JoinedDataset:
    """Samples of `shards` with their labels, augmented as a pure function of their position.

    labels: one reader per task; a task's targets are present where its reader has the sample.
    cache: decoded images and labels of small data sets, shared by all threads.
    """

    shards: ImageTextShards
    labels: Mapping[str, LabelReader]
    augmentation: Augmentation
    seed: int
    cache: ByteBudgetCache = field(default_factory=lambda: ByteBudgetCache(0))
    _own: threading.local = field(default_factory=threading.local, init=False, repr=False)

    def batch(self, sampler: Sampler, step: int) -> Batch:
        """The whole batch of `step`; the same bytes whenever and wherever it is asked for."""
        drawn: Step = sampler.batch_at(step)
        items = [
            self.item(index, position, drawn.size)
            for index, position in zip(drawn.indices, drawn.positions, strict=True)
        ]
        images = np.stack([item.image for item in items])  # (B, H, W, 3)
        return Batch(
            images=torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
            captions=tuple(item.caption for item in items),
            names=tuple(item.name for item in items),
            targets={
                task: collate_labels([item.labels[task] for item in items], reader.kind, drawn.size)
                for task, reader in self.labels.items()
            },
        )

    def item(self, index: int, position: int, size: Size) -> Item:
        """Sample `index`, seen at global `position` of the run, at `size` (height, width)."""
        found = self._readable(index)
        height, width = found.image.shape[:2]
        generator = sample_generator(self.seed, position, _VIEW)
        view = draw_view(height, width, self.augmentation, generator)
        return Item(
            image=view_image(found.image, view, size),
            caption=_draw_caption(found.text, sample_generator(self.seed, position, _CAPTION)),
            name=f"{found.shard}:{found.key}",
            labels={task: self._label(task, found, view, size) for task in self.labels},
        )

    def _readable(self, index: int) -> _Decoded:
        """Sample `index`, or the next one whose image can be decoded."""
        total = len(self.shards)
        for attempt in range(total):
            decoded = self._decoded((index + attempt) % total)
            if decoded is not None:
                return decoded
        raise ValueError(f"{self.shards.root}: none of the {total} images can be decoded")

    def _decoded(self, index: int) -> _Decoded | None:
        known: _Decoded | Literal["broken"] | None = self.cache.get(("image", index))
        if known is not None:
            return None if known == "broken" else known
        shard, key = self.shards.locate(index)
        sample = self.shards.read(shard, key)
        try:
            decoded = _Decoded(shard, key, decode_image(sample.image), sample.text)
        except ImageError as error:
            say(f"{shard}:{key}: {error}; the next readable sample takes its place")
            self.cache.put(("image", index), "broken", 0)
            return None
        self.cache.put(("image", index), decoded, decoded.image.nbytes)
        return decoded

    def _label(self, task: str, found: _Decoded, view: View, size: Size) -> StoredLabel | None:
        place = (task, found.shard, found.key)
        stored: StoredLabel | None = self.cache.get(place)
        if stored is None:
            stored = self._reader(task).read(found.shard, found.key)
            if stored is None:
                return None
            self.cache.put(place, stored, stored.array.nbytes)
        seen = self.labels[task].kind.sample(stored.array, view.box, size, view.flip)
        return StoredLabel(seen, stored.shift, stored.scale)

    def _reader(self, task: str) -> LabelReader:
        """This thread's own reader: readers keep open files and are not made to be shared."""
        readers = self._own.__dict__
        if task not in readers:
            readers[task] = copy.copy(self.labels[task])
        return readers[task]


def _draw_caption(text: str, generator: np.random.Generator) -> str:
    lines = text.splitlines() or [""]
    return lines[int(generator.integers(len(lines)))]


def collate_labels(labels: list[StoredLabel | None], kind: Kind, size: Size) -> DenseTargets:
    """Stack labels, missing ones included, into what the task's loss reads.

    ClassMap: target (B, H, W) uint8 or int32 ids, invalid = kind.ignore.
    ScalarField: target (B, 1, H, W) float32, (value - shift) / scale by the whole image's
        robust statistics stored with the label (never the crop's), 0 where invalid.
    UnitVector: target (B, 3, H, W) float32, 0 where invalid.
    valid: (B, H, W) bool; present: (B,) bool, False where the sample has no label.
    """
    arrays = [_blank(kind, size) if label is None else label.array for label in labels]
    present = torch.tensor([label is not None for label in labels])
    valid = torch.from_numpy(np.stack([kind.valid(array) for array in arrays]))  # (B, H, W)
    if isinstance(kind, ScalarField):
        arrays = [
            array if label is None else _normalise(array, label)
            for array, label in zip(arrays, labels, strict=True)
        ]
    stacked = np.stack(arrays)  # (B, H, W) or (B, H, W, 3)
    match kind:
        case ClassMap():
            stacked = stacked if stacked.dtype == np.uint8 else stacked.astype(np.int32)
        case ScalarField():
            stacked = np.nan_to_num(stacked[:, None], nan=0.0)  # (B, 1, H, W)
        case UnitVector():
            stacked = stacked.transpose(0, 3, 1, 2)  # (B, 3, H, W)
    target = torch.from_numpy(np.ascontiguousarray(stacked))
    return DenseTargets(target=target, valid=valid & present[:, None, None], present=present)


def _normalise(array: np.ndarray, label: StoredLabel) -> np.ndarray:
    if label.shift is None or label.scale is None:
        return array
    scale = max(label.scale, SMALLEST_SCALE)
    return ((array - label.shift) / scale).astype(np.float32)


def _blank(kind: Kind, size: Size) -> np.ndarray:
    match kind:
        case ClassMap():
            return np.full(size, kind.ignore, np.uint8 if kind.ignore < 256 else np.uint16)
        case ScalarField():
            return np.full(size, np.nan, np.float32)
        case UnitVector():
            return np.zeros((*size, 3), np.float32)
