"""Probe groups: all heads x learning rates x seeds of one data set, on one encoder pass per batch.

Batches come from the data seed alone; every head has its own optimizer and its own randomness, so
that it learns exactly what it would learn alone (`tests/probes/test_heads.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cliptex.console import track
from cliptex.data.transforms import sample_generator
from cliptex.metrics.scorers import Scorer
from cliptex.models.config import HEAD_NAMES, HeadName
from cliptex.models.decay import decay_groups
from cliptex.models.encoder import FrozenEncoder
from cliptex.models.heads import dense_head, upsample
from cliptex.probes.config import GroupConfig
from cliptex.probes.features import FeatureReader, FeatureStore, MmapBuffer, StoredMemory, encode
from cliptex.probes.method import (
    Batch,
    HeadKey,
    HeadLearner,
    Method,
    held_count,
    own_randomness,
    steps_of,
)
from cliptex.probes.task import MapSplit, Pair, ProbeTask

Builder = Callable[[int, int, int, GroupConfig], nn.Module]
"""(channels of the map, outputs, stride, configuration) -> a fresh head (B, C, h, w) ->
(B, outputs, h, w), from torch's global generator."""


def _built(name: HeadName, channels: int, outputs: int, stride: int, c: GroupConfig) -> nn.Module:
    form: dict[str, Any] = {"width": c.width, "norm": c.norm, "dropout": c.dropout}
    return dense_head(name, channels, outputs, stride=stride, **form)


HEADS: dict[str, Builder] = {name: partial(_built, name) for name in HEAD_NAMES}
"""Every kind of head on maps: a line here is all that a new one needs."""

UNTRAINED = {"recipe", "protocols", "things", "holdout", "refit", *GroupConfig.RUNTIME}
"""Fields that change no head's training on given pictures: a state outlives changes of them."""
ORDER, AUGMENTATION = 11, 12  # purposes of the data seed's generators
TARGETS_IN_MEMORY = 1 << 30  # bytes of targets; more goes to a memory-mapped file
Draw = tuple[int, int]  # index in the set, and position counted over all epochs
T = TypeVar("T")


class MapLearner(HeadLearner):
    """A head on the encoder's last map, or on its pooled features as a map of one cell."""

    def __init__(
        self, key: HeadKey, channels: int, task: ProbeTask, config: GroupConfig, stride: int
    ) -> None:
        with own_randomness(key.seed, 0):
            module = HEADS[key.head](channels, task.outputs, stride, config)
        groups = decay_groups(module.parameters(), config.weight_decay)
        super().__init__(key, module, torch.optim.AdamW(groups, lr=key.lr, betas=config.betas))
        self._task, self._corners = task, config.align_corners

    def loss(self, batch: Batch, step: int) -> Tensor:
        """Against targets (B, r, r, ...); dropout depends on the seed and the step alone."""
        with own_randomness(self.key.seed, step + 1, device=batch.features.device):
            out = self.module(batch.features)  # (B, K, h, w)
        return self._task.loss(self.enlarge(out, batch.targets.shape[1:3]), batch.targets)

    def predict(self, features: Tensor) -> list[Tensor]:
        """Raw outputs (B, K, h, w), in evaluation mode."""
        with torch.no_grad():
            return [self.module.eval()(features)]

    def enlarge(self, out: Tensor, size: tuple[int, ...]) -> Tensor:
        """(B, K, h, w) -> (B, K, *size)."""
        return upsample(out, (size[0], size[1]), align_corners=self._corners)


class MapMethod(Method):
    """What probes on one map or pooled vector per picture have in common: sets and scoring."""

    train: MapSplit
    probe: ProbeTask

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.probe = self.train.probe

    @classmethod
    def split_of(
        cls, dataset: Any, config: Any, truths: Mapping[str, Any] | None = None
    ) -> MapSplit:
        """As `MapSplit`."""
        return MapSplit(dataset, config, truths)

    def add(self, head: Any, out: Tensor, answer: Any, scorers: Sequence[Scorer]) -> None:
        """Outputs (K, h, w) at the size of the ground truths, one per scorer.

        One head at a time: all of them would be gigabytes for large pictures.
        """
        full = head.enlarge(out[None], answer[0].shape[:2])[0]  # (K, H, W)
        for scorer, truth in zip(scorers, answer, strict=False):
            scorer.add(full, truth)


class ProbeGroup(MapMethod):
    """Heads of any kind, on augmented pictures or on stored features."""

    config: GroupConfig

    @classmethod
    def split_of(
        cls, dataset: Any, config: GroupConfig, truths: Mapping[str, Any] | None = None
    ) -> MapSplit:
        """As `MapSplit`; ValueError for heads and augmentation that are not of the task."""
        split = super().split_of(dataset, config, truths)
        split.check_augmentation(config.augmentation)
        if unknown := [name for name in config.heads if name not in HEADS]:
            raise ValueError(f"`heads`: {unknown[0]} is unknown; choose from {', '.join(HEADS)}")
        if not split.probe.dense and config.heads != ("linear",):
            raise ValueError(f"`heads`: {split.task} supports only linear, not {config.heads}")
        return split

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._source = LiveSource(self.encoder, self.train, self.config)
        if self.storage.features is not None:
            store, sha = self.storage.features, self.fingerprint
            self._source = StoredSource(store, self.encoder, self.train, self.config, sha)

    def hold_out(self, rows: list[int], keys: Sequence[HeadKey]) -> tuple[list[int], list[int]]:
        """By the data seed."""
        count = held_count(len(rows), self.config.holdout)
        rng = np.random.default_rng([self.config.data_seed, len(rows)])
        order = rng.permutation(len(rows)).tolist()
        return sorted(order[count:]), sorted(order[:count])

    def begin(self, keys: Sequence[HeadKey], rows: Sequence[int]) -> tuple[list[MapLearner], Plan]:
        """Untrained heads on what the encoder gives for a blank picture."""
        side, stride = self.config.resolution, self.encoder.stride
        blank = self._source.encode([np.zeros((side, side, 3), np.uint8)])
        task, channels = self.probe, blank.shape[1]
        learners = [MapLearner(key, channels, task, self.config, stride) for key in keys]
        for learner in learners:
            learner.module.to(self.encoder.device)
        return learners, Plan(self._source, rows, self.config)

    def state(self, keys: Sequence[HeadKey], rows: Sequence[int]) -> dict[str, object]:
        """Configuration, encoder, pictures, and which heads; not how they are scored."""
        return {
            "config": self.config.model_dump(mode="json", exclude=UNTRAINED),
            "encoder": self.fingerprint,
            "train": [self.train.name, self.train.digest(), list(rows)],
            "keys": [key.name for key in keys],
            "features": self._source.protocol(),
        }

    def read(
        self, split: MapSplit, rows: Sequence[int] | None, label: str
    ) -> Iterator[tuple[Tensor, list[tuple[np.ndarray, ...]]]]:
        """Maps of whole pictures, computed now, and ground truths."""
        chosen = list(range(len(split)) if rows is None else rows)
        for start in track(range(0, len(chosen), self.config.extract_batch), label=label):
            pairs = [split.test(i) for i in chosen[start : start + self.config.extract_batch]]
            yield self._source.encode([image for image, _ in pairs]), [truth for _, truth in pairs]

    def protocol(self, key: HeadKey) -> dict[str, object]:
        """As in `Method`."""
        return {
            **self.config.protocol(),
            **self.train.facts(),
            "head": key.head,
            "loss": self.probe.loss_name,
            "train_images": len(self.train),
            "evaluation": "whole picture squashed to the resolution, outputs at the truth's size",
            **self._source.protocol(),
        }


class Plan:
    """The batches of some rows of a source: a function of the data seed, the rows and the step."""

    def __init__(self, source: LiveSource, rows: Sequence[int], config: GroupConfig) -> None:
        self._source, self._rows, self._config = source, rows, config
        self.steps, self.steps_per_epoch = steps_of(len(rows), config)

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """The batches of steps `start`, `start` + 1, ..., in their order."""
        return self._source.stream(self.draws(start))

    def draws(self, start: int = 0) -> Iterator[list[Draw]]:
        """What each step from `start` on reads."""
        rows, size = self._rows, self._config.batch_size
        order = np.empty(0, int)
        for step in range(start, self.steps):
            epoch, batch = divmod(step, self.steps_per_epoch)
            if batch == 0 or step == start:
                rng = np.random.default_rng([self._config.data_seed, epoch, ORDER])
                order = rng.permutation(np.asarray(rows))
            first = batch * size
            chosen = order[first : first + size].tolist()
            yield [(index, epoch * len(rows) + first + i) for i, index in enumerate(chosen)]


class LiveSource:
    """Augmented pictures through the frozen encoder, while threads read those of the next batch."""

    def __init__(self, encoder: FrozenEncoder, split: MapSplit, config: GroupConfig) -> None:
        self._encoder, self._split, self._config = encoder, split, config

    def stream(self, plan: Iterable[Sequence[Draw]]) -> Iterator[Batch]:
        """A batch per element of the plan."""
        dtype = self._split.probe.dtype
        for pairs in ahead(plan, self._prepare, self._config.workers):
            maps = self.encode([image for image, _ in pairs])
            targets = np.stack([target for _, target in pairs])
            yield Batch(maps, torch.from_numpy(targets).to(maps.device, dtype))

    def _prepare(self, draw: Draw) -> Pair:
        index, position = draw
        rng = sample_generator(self._config.data_seed, position, AUGMENTATION)
        return self._split.drawn(index, self._config.augmentation, rng)

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """What heads read of (r, r, 3) uint8 pictures, (B, C, h, w) float32."""
        dense, precision = self._split.probe.dense, self._config.precision
        return encode(self._encoder, images, dense=dense, precision=precision)

    def protocol(self) -> dict[str, object]:
        """What rows say of the features."""
        return {"features": "one encoder pass per batch"}


class StoredSource(LiveSource):
    """Maps of whole pictures from a store, which is filled first with what it lacks.

    Targets lie in memory, or beyond a limit in a file without a name. ValueError for a
    configuration with augmentation, and where there is no room in the store.
    """

    def __init__(
        self,
        store: FeatureStore,
        encoder: FrozenEncoder,
        split: MapSplit,
        config: GroupConfig,
        fingerprint: str,
    ) -> None:
        super().__init__(encoder, split, config)
        if config.augmentation is not None:
            raise ValueError(
                "`features`: stored features cannot be augmented; set `augmentation=False`, or do "
                "not store features"
            )
        self._memory = StoredMemory(store)
        dense = split.probe.dense
        reader = FeatureReader(
            encoder, config, dense=dense, fingerprint=fingerprint, memory=self._memory
        )
        buffer, count = MmapBuffer(store.folder, TARGETS_IN_MEMORY), len(split)
        first = split.plain(0)[1]
        name = f"labels of {split.name}"
        self._targets = buffer.empty((count, *first.shape), split.probe.dtype, name)
        self._keys: list[str] = []
        read = reader.stream(split.name, count, split.plain, f"features of {split.name}")
        for i, (image, target, _) in enumerate(read):
            self._keys.append(reader.key(image))
            self._targets[i] = torch.from_numpy(np.ascontiguousarray(target))

    def stream(self, plan: Iterable[Sequence[Draw]]) -> Iterator[Batch]:
        """A batch per element of the plan."""
        device = self._encoder.device
        for read in ahead(plan, self._stored, self._config.workers):
            maps = torch.stack([features for _, features in read]).to(device)
            rows = torch.tensor([row for row, _ in read])
            yield Batch(maps, self._targets[rows].to(device))

    def _stored(self, draw: Draw) -> tuple[int, Tensor]:
        return draw[0], self._memory.store.read(self._keys[draw[0]])

    def protocol(self) -> dict[str, object]:
        """What rows say of the features: the storage error of the whole training set."""
        return self._memory.protocol()


def ahead(
    plan: Iterable[Sequence[Draw]], read: Callable[[Draw], T], workers: int
) -> Iterator[list[T]]:
    """The batches of `plan`, each draw read in a thread while the batch before is used."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[T]] | None = None
        try:
            for draws in plan:
                submitted = [pool.submit(read, draw) for draw in draws]
                if waiting is not None:
                    yield [future.result() for future in waiting]
                waiting = submitted
            if waiting is not None:
                yield [future.result() for future in waiting]
        finally:
            pool.shutdown(cancel_futures=True)
