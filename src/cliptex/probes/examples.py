"""Pictures with targets, prepared for a bank: augmented for training, squashed for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cliptex.data.transforms import Augmentation, draw_view, view_image
from cliptex.datasets.protocol import DenseDataset, LabelledImages
from cliptex.probes.augment import CropAugmentation, augmented
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.classification import AccuracyScorer, class_loss
from cliptex.probes.dense import probe_task
from cliptex.probes.features import WHOLE
from cliptex.probes.fit import Loss
from cliptex.probes.scores import Scorer

Pair = tuple[np.ndarray, np.ndarray]  # (r, r, 3) uint8 and a target


@dataclass(frozen=True, kw_only=True)
class BankTask:
    """What heads learn: `channels` outputs against targets of `dtype`; `dense` reads the map.

    `identity` is what two sets must share to belong to one probe (a kind, or classes).
    """

    name: str
    channels: int
    dense: bool
    dtype: torch.dtype
    loss: Loss
    loss_name: str
    scorer: Callable[[], Scorer]
    identity: object


@dataclass(frozen=True, kw_only=True)
class Examples:
    """One split of a data set, for one task.

    train(index, rng): augmented picture and training target at the resolution.
    plain(index): squashed picture and training target, without augmentation.
    test(index): squashed picture and ground truth at its own size.
    """

    name: str
    count: int
    task: BankTask
    train: Callable[[int, np.random.Generator], Pair]
    plain: Callable[[int], Pair]
    test: Callable[[int], Pair]

    def __len__(self) -> int:
        return self.count


def dense_examples(dataset: DenseDataset, config: BankConfig) -> Examples:
    """Segmentation, depth or normals, by the kind of the set; ValueError where it has no probe."""
    dense = probe_task(dataset.kind, config)
    side, crop = config.resolution, config.augmentation
    if isinstance(crop, Augmentation):
        raise ValueError(f"augmentation: {dense.name} takes a CropAugmentation, or None")

    def plain(index: int) -> Pair:
        item = dataset[index]
        return squashed(item.image, side), dense.prepare(item.target, side)

    def train(index: int, rng: np.random.Generator) -> Pair:
        if crop is None:
            return plain(index)
        item = dataset[index]
        return augmented(item.image, dense.convert(item.target), dense.label, side, crop, rng)

    def test(index: int) -> Pair:
        item = dataset[index]
        return squashed(item.image, side), item.target

    task = BankTask(
        name=dense.name,
        channels=dense.channels,
        dense=True,
        dtype=dense.dtype,
        loss=dense.loss,
        loss_name=dense.loss_name,
        scorer=dense.scorer,
        identity=dataset.kind,
    )
    name, count = dataset.name, len(dataset)
    return Examples(name=name, count=count, task=task, train=train, plain=plain, test=test)


def class_examples(dataset: LabelledImages, config: BankConfig) -> Examples:
    """Classification on pooled features: a map of one cell, and a label of one pixel."""
    side, crop = config.resolution, config.augmentation
    if isinstance(crop, CropAugmentation):
        raise ValueError("augmentation: classification takes data.transforms.Augmentation, or None")
    if any(head != "linear" for head in config.heads):
        raise ValueError(f"heads: pooled features have a linear probe only, not {config.heads}")

    def plain(index: int) -> Pair:
        image, label = dataset[index]
        return squashed(image, side), np.array([[label]])

    def train(index: int, rng: np.random.Generator) -> Pair:
        if crop is None:
            return plain(index)
        image, label = dataset[index]
        view = draw_view(image.shape[0], image.shape[1], crop, rng)
        return view_image(image, view, (side, side)), np.array([[label]])

    task = BankTask(
        name="classification",
        channels=len(dataset.classes),
        dense=False,
        dtype=torch.int64,
        loss=class_loss,
        loss_name="cross-entropy",
        scorer=AccuracyScorer,
        identity=dataset.classes,
    )
    name, count = dataset.name, len(dataset)
    return Examples(name=name, count=count, task=task, train=train, plain=plain, test=plain)


def squashed(image: np.ndarray, side: int) -> np.ndarray:
    """A whole picture (H, W, 3) at (side, side, 3) uint8."""
    return view_image(image, WHOLE, (side, side))
