"""Pictures of shards under the views of a run, decoded no larger than the view needs."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cliptex.console import say
from cliptex.data.sampler import Size
from cliptex.data.transforms import (
    Augmentation,
    View,
    draw_view,
    reduction,
    sample_generator,
    view_image,
)
from cliptex.shards.captions import CaptionError
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image, jpeg_size

VIEW = 0  # purpose of the generator of a sample


class ByteBudgetCache:
    """Entries of stated size, until `budget` bytes are used; safe to share among threads.

    Then it stays as it is. Epochs read everything once in random order, for which evicting the
    least recently used entry is the worst rule there is: what is dropped is what comes next. A
    fixed part kept for good hits at the rate of its share of the data.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._entries: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any | None:
        """What was put under `key`, or None."""
        return self._entries.get(key)

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep `value`, of `nbytes` bytes, unless that would exceed the budget."""
        with self._lock:
            if key not in self._entries and self.used + nbytes <= self.budget:
                self._entries[key] = value
                self.used += nbytes


@dataclass(frozen=True)
class Seen:
    """One sample's picture under one view: `image` (h, w, 3) uint8."""

    shard: str
    key: str
    text: str
    view: View
    image: np.ndarray


@dataclass(frozen=True)
class _Decoded:
    """A sample whose image was readable; `image` is the picture made smaller by `by`."""

    shard: str
    key: str
    text: str
    full: Size
    by: int
    image: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The images of `shards` under `augmentation`, as pure functions of their position.

    A JPEG whose view has at least twice the pixels that are wanted along both sides is decoded at
    1/2, 1/4 or 1/8 of its size (`reduction`). That depends on the image, the view and the size
    alone, and labels are not concerned, since views are relative.
    """

    shards: ImageTextShards
    augmentation: Augmentation
    seed: int
    cache: ByteBudgetCache

    def seen(self, index: int, position: int, size: Size) -> Seen:
        """Sample `index`, or the next one that can be read, as seen at `position` at `size`."""
        total = len(self.shards)
        for attempt in range(total):
            found = self._decoded((index + attempt) % total, position, size)
            if found is not None:
                view = self._view(found.full, position)
                extent = (found.full[0] / found.by, found.full[1] / found.by)
                image = view_image(found.image, view, size, extent=extent)
                return Seen(found.shard, found.key, found.text, view, image)
        raise ValueError(
            f"{self.shards.root}: none of the {total} images can be read, as said above"
        )

    def _view(self, full: Size, position: int) -> View:
        generator = sample_generator(self.seed, position, VIEW)
        return draw_view(full[0], full[1], self.augmentation, generator)

    def _reduction(self, full: Size, position: int, size: Size) -> int:
        return reduction(full[0], full[1], self._view(full, position), size)

    def _decoded(self, index: int, position: int, size: Size) -> _Decoded | None:
        known: tuple[Size, bool] | Literal["broken"] | None = self.cache.get(("picture", index))
        if known == "broken":
            return None
        if known is not None:
            full, reducible = known
            by = self._reduction(full, position, size) if reducible else 1
            kept: _Decoded | None = self.cache.get(("picture", index, by))
            if kept is not None:
                return kept
        return self._decode(index, position, size)

    def _decode(self, index: int, position: int, size: Size) -> _Decoded | None:
        shard, key = self.shards.locate(index)
        try:
            sample = self.shards.read(shard, key)
            full = jpeg_size(sample.image)
            by = 1 if full is None else self._reduction(full, position, size)
            min_side = None if full is None or by == 1 else min(full) // by
            image = decode_image(sample.image, min_side=min_side)
        except (ImageError, CaptionError) as error:
            say(f"{shard}:{key}: {error}; the next readable sample takes its place")
            self.cache.put(("picture", index), "broken", 0)
            return None
        reducible, full = full is not None, full or (image.shape[0], image.shape[1])
        found = _Decoded(shard, key, sample.text, full, by, image)
        self.cache.put(("picture", index), (full, reducible), 0)
        self.cache.put(("picture", index, by), found, image.nbytes)
        return found
