"""Where a bank's batches of features come from: one encoder pass per batch, on fresh crops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from cliptex.data.transforms import sample_generator
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.examples import Examples, Pair
from cliptex.probes.features import encode

_ORDER, _AUGMENTATION = 11, 12  # purposes of the data seed's generators

Draw = tuple[int, int]  # index in the set, and position counted over all epochs
T = TypeVar("T")


@dataclass(frozen=True)
class FeatureBatch:
    """Maps (B, C, h, w) float32 without gradient, and targets (B, ...) at the resolution."""

    maps: Tensor
    targets: Tensor


class BatchSource(Protocol):
    """Features and targets of drawn pictures, in the order of the plan."""

    def stream(self, plan: Iterable[Sequence[Draw]]) -> Iterator[FeatureBatch]: ...

    def protocol(self) -> dict[str, object]: ...


def steps_of(count: int, config: BankConfig) -> tuple[int, int]:
    """All steps, and those of one epoch, over `count` pictures."""
    per_epoch = math.ceil(count / config.batch_size)
    return config.epochs * per_epoch, per_epoch


def batch_plan(rows: Sequence[int], config: BankConfig, start: int = 0) -> Iterator[list[Draw]]:
    """What each step from `start` on reads: a function of the data seed, `rows` and the step."""
    steps, per_epoch = steps_of(len(rows), config)
    order = np.empty(0, int)
    for step in range(start, steps):
        epoch, batch = divmod(step, per_epoch)
        if batch == 0 or step == start:
            rng = np.random.default_rng([config.data_seed, epoch, _ORDER])
            order = rng.permutation(np.asarray(rows))
        first = batch * config.batch_size
        chosen = order[first : first + config.batch_size].tolist()
        yield [(index, epoch * len(rows) + first + i) for i, index in enumerate(chosen)]


class LiveSource:
    """Augmented pictures through the frozen encoder, while threads read those of the next batch."""

    def __init__(self, encoder: FrozenEncoder, examples: Examples, config: BankConfig) -> None:
        self._encoder = encoder
        self._examples = examples
        self._config = config

    def stream(self, plan: Iterable[Sequence[Draw]]) -> Iterator[FeatureBatch]:
        dtype = self._examples.task.dtype
        for pairs in ahead(plan, self._prepare, self._config.workers):
            maps = self.encode([image for image, _ in pairs])
            targets = np.stack([target for _, target in pairs])
            yield FeatureBatch(maps, torch.from_numpy(targets).to(maps.device, dtype))

    def _prepare(self, draw: Draw) -> Pair:
        index, position = draw
        rng = sample_generator(self._config.data_seed, position, _AUGMENTATION)
        return self._examples.train(index, rng)

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """What heads read of (r, r, 3) uint8 pictures, (B, C, h, w) float32."""
        task = self._examples.task
        return encode(self._encoder, images, dense=task.dense, precision=self._config.precision)

    def protocol(self) -> dict[str, object]:
        return {"features": "one encoder pass per batch"}


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
