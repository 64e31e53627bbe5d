"""Image-text samples joined with the labels of any number of experts by (shard, key).

A label that is missing costs the sample that task's loss alone: its targets are marked as not
present. A damaged label is missing, too, and named once. An image that cannot be decoded is
replaced by the next readable sample and named once.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch

from cliptex.console import say
from cliptex.data.pictures import ByteBudgetCache, Pictures, Seen
from cliptex.data.sampler import Sampler, Size, Step
from cliptex.data.transforms import Augmentation, View, sample_generator
from cliptex.labels.kinds import Kind, Normalisation
from cliptex.labels.reader import DamagedLabel, LabelReader, StoredLabel
from cliptex.labels.sampling import sample_bilinear
from cliptex.losses import DenseTargets
from cliptex.shards.dataset import ImageTextShards

_CAPTION = 1  # purpose of the generator of a sample, beside that of cliptex.data.pictures


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


@dataclass(frozen=True, kw_only=True)
class JoinedDataset:
    """Samples of `shards` with their labels, augmented as a pure function of their position.

    labels: one reader per task; a task's targets are present where its reader has the sample.
    depth_norm: the statistics by which scalar fields are normalised.
    confidence: tasks whose targets carry the stored confidence as the weight of their loss.
    cache: decoded images and labels of small data sets, shared by all threads.
    """

    shards: ImageTextShards
    labels: Mapping[str, LabelReader]
    augmentation: Augmentation
    seed: int
    confidence: frozenset[str] = frozenset()
    depth_norm: Normalisation = "median-mad"
    cache: ByteBudgetCache = field(default_factory=lambda: ByteBudgetCache(0))
    _own: threading.local = field(default_factory=threading.local, init=False, repr=False)
    _damaged: set[tuple[str, str, str]] = field(default_factory=set, init=False, repr=False)

    def batch(self, sampler: Sampler, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """The part of `step`'s batch that rank `rank` of `world` reads; by default all of it.

        The same bytes whenever and wherever it is asked for.
        """
        drawn: Step = sampler.batch_at(step).share(rank, world)
        items = [
            self.item(index, position, drawn.size)
            for index, position in zip(drawn.indices, drawn.positions, strict=True)
        ]
        images = np.empty((len(items), 3, *drawn.size), np.uint8)  # (B, 3, H, W)
        for row, item in enumerate(items):
            images[row] = item.image.transpose(2, 0, 1)
        return Batch(
            images=torch.from_numpy(images),
            captions=tuple(item.caption for item in items),
            names=tuple(item.name for item in items),
            targets={
                task: collate_labels([item.labels[task] for item in items], reader.kind, drawn.size)
                for task, reader in self.labels.items()
            },
        )

    def item(self, index: int, position: int, size: Size) -> Item:
        """Sample `index`, seen at global `position` of the run, at `size` (height, width)."""
        found = self._pictures.seen(index, position, size)
        return Item(
            image=found.image,
            caption=_draw_caption(found.text, sample_generator(self.seed, position, _CAPTION)),
            name=f"{found.shard}:{found.key}",
            labels={task: self._label(task, found, size) for task in self.labels},
        )

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures(
            shards=self.shards, augmentation=self.augmentation, seed=self.seed, cache=self.cache
        )

    def _label(self, task: str, found: Seen, size: Size) -> StoredLabel | None:
        place = (task, found.shard, found.key)
        stored: StoredLabel | None = self.cache.get(place)
        if stored is None:
            stored = self._read(task, found)
            if stored is None:
                return None
            stored = with_statistics(stored, self.labels[task].kind, self.depth_norm)
            self.cache.put(place, stored, _bytes_of(stored))
        return view_label(stored, self.labels[task].kind, found.view, size)

    def _read(self, task: str, found: Seen) -> StoredLabel | None:
        try:
            weighted = task in self.confidence
            return self._reader(task).read(found.shard, found.key, confidence=weighted)
        except DamagedLabel as error:
            place = (task, found.shard, found.key)
            if place not in self._damaged:
                self._damaged.add(place)
                count = len(self._damaged)
                say(f"{task}: {error}. Training goes on without it ({count} damaged so far)")
            return None

    def _reader(self, task: str) -> LabelReader:
        """This thread's own reader: readers keep open files and are not made to be shared."""
        readers = self._own.__dict__
        if task not in readers:
            readers[task] = copy.copy(self.labels[task])
        return readers[task]


def load_batches(
    dataset: JoinedDataset,
    sampler: Sampler,
    steps: range,
    *,
    workers: int,
    rank: int = 0,
    world: int = 1,
    prefetch: int = 4,
) -> Generator[Batch, None, None]:
    """Yield the batch of every step in `steps`, in order, prepared ahead by threads.

    Threads rather than processes: decoding, resizing and the larger numpy operations release the
    interpreter's lock, one cache of decoded pictures serves all, nothing is pickled, and there is
    neither a start-up time nor a copy of the address space to wait for.

    workers: threads that prepare batches; 0 prepares each batch when it is asked for. The
    batches do not depend on it. rank, world: whose part of the global batches (`Step.share`).
    prefetch: batches kept ready.
    """
    read = partial(dataset.batch, sampler, rank=rank, world=world)
    if workers == 0:
        yield from map(read, steps)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batch") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in steps:
                waiting.append(pool.submit(read, step))
                if len(waiting) > prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def check_same_images(reader: LabelReader, shards: ImageTextShards) -> None:
    """Raise ValueError where a store's labels are not those of `shards`."""
    if reader.manifest.dataset_id != shards.dataset_id:
        raise ValueError(
            f"{reader.folder}: these labels belong to the data set {reader.manifest.dataset_id}, "
            f"but {shards.root} is {shards.dataset_id}; label the latter (`cliptex "
            "label run`), or use the former"
        )


def _draw_caption(text: str, generator: np.random.Generator) -> str:
    lines = text.splitlines() or [""]
    return lines[int(generator.integers(len(lines)))]


def view_label(stored: StoredLabel, kind: Kind, view: View, size: Size) -> StoredLabel:
    """The view of a label at `size` (h, w) by its kind's rule; of its confidence, bilinearly."""
    confidence = stored.confidence
    if confidence is not None:
        confidence = sample_bilinear(confidence, view.box, size, flip=view.flip).clip(0, 1)
    seen = kind.sample(stored.array, view.box, size, view.flip)
    return replace(stored, array=seen, confidence=confidence)


def _bytes_of(stored: StoredLabel) -> int:
    return stored.array.nbytes + (0 if stored.confidence is None else stored.confidence.nbytes)


def collate_labels(labels: Sequence[StoredLabel | None], kind: Kind, size: Size) -> DenseTargets:
    """Stack labels, missing ones included, into what the task's loss reads.

    target: class ids (B, H, W) uint8 or int32, invalid = `ignore`; of other kinds (B, C, H, W)
        float32, 0 where invalid, scalar fields as (value - shift) / scale by the whole image's
        statistics that come with the label (never the crop's).
    valid: (B, H, W) bool; present: (B,) bool, False where the sample has no label.
    weight: (B, H, W) float32 in [0, 1], 1 where a label has no confidence; None where none has.
    """
    valid = np.zeros((len(labels), *size), bool)  # (B, H, W)
    target = kind.blank(len(labels), size)
    for row, label in enumerate(labels):
        if label is not None:
            valid[row] = kind.valid(label.array)
            normalised = kind.normalise(label.array, label.shift, label.scale)
            kind.fill(target[row], normalised, valid[row])
    return DenseTargets(
        target=torch.from_numpy(target),
        valid=torch.from_numpy(valid),
        present=torch.tensor([label is not None for label in labels]),
        weight=_weights(labels, size),
    )


def _weights(labels: Sequence[StoredLabel | None], size: Size) -> torch.Tensor | None:
    """(B, H, W): each label's confidence, 1 where it has none; None where no label has any."""
    maps = [None if label is None else label.confidence for label in labels]
    if all(found is None for found in maps):
        return None
    ones = np.ones(size, np.float32)
    return torch.from_numpy(np.stack([ones if found is None else found for found in maps]))


def with_statistics(stored: StoredLabel, kind: Kind, rule: Normalisation) -> StoredLabel:
    """The label of a whole image, with the shift and scale by which `rule` normalises it."""
    shift, scale = kind.normalisation(stored.array, (stored.shift, stored.scale), rule)
    return replace(stored, shift=shift, scale=scale)
