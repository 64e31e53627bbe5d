"""Pictures with targets, prepared for a bank: augmented for training, squashed for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from cliptex.data.transforms import Augmentation, draw_view, view_image
from cliptex.datasets.protocol import DenseDataset, LabelledImages, refuse_empty
from cliptex.probes.augment import CropAugmentation, augmented
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.classification import class_loss
from cliptex.probes.features import WHOLE
from cliptex.probes.fit import Loss
from cliptex.probes.items import class_item, dense_item, digest_of, place_of
from cliptex.probes.protocol import train_facts, truths_of
from cliptex.probes.scorers import AccuracyScorer
from cliptex.probes.scores import Scorer
from cliptex.probes.tasks import probe_task

Pair = tuple[np.ndarray, np.ndarray]  # (r, r, 3) uint8 and a target


@dataclass(frozen=True, kw_only=True)
class BankTask:
    """What heads learn: `channels` outputs against targets of `dtype`; `dense` reads the map.

    `identity` is what two sets must share to belong to one probe (a kind, or classes). `scorers`
    make one scorer per protocol, the first of which chooses rates.
    """

    name: str
    channels: int
    dense: bool
    dtype: torch.dtype
    loss: Loss
    loss_name: str
    scorers: tuple[Callable[[], Scorer], ...]
    identity: object


@dataclass(frozen=True, kw_only=True)
class Examples:
    """One split of a data set, for one task.

    train(index, rng): augmented picture and training target at the resolution.
    plain(index): squashed picture and training target, without augmentation.
    test(index): squashed picture and its ground truths at their own size, one per scorer.
    check(): ValueError where nothing can be learnt from the set.
    place: what messages call it; facts: what rows say of it where it is trained on.
    """

    name: str
    count: int
    task: BankTask
    train: Callable[[int, np.random.Generator], Pair]
    plain: Callable[[int], Pair]
    test: Callable[[int], tuple[np.ndarray, tuple[np.ndarray, ...]]]
    check: Callable[[], None]
    place: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def digest(self) -> str:
        """Of the number of pictures, and of some of them with their targets: first, last, between.

        Another split, order or ground truth under the same name has another digest.
        """
        return digest_of(self.name, self.count, self.plain)


def dense_examples(
    dataset: DenseDataset,
    config: BankConfig,
    truths: Mapping[str, DenseDataset] | None = None,
) -> Examples:
    """Segmentation, depth or normals, by the kind of the set.

    `truths` hold, by protocol, sets of the same pictures with other ground truths to score on.
    ValueError where the set is empty or has no probe, or an item is not as `DenseItem` says.
    """
    refuse_empty(dataset, place_of(dataset))
    dense = probe_task(dataset.kind, config)
    answers = truths_of(dataset, dense.protocols, truths)
    side, crop = config.resolution, config.augmentation
    if isinstance(crop, Augmentation):
        raise ValueError(f"augmentation: {dense.name} takes a CropAugmentation, or None")

    def plain(index: int) -> Pair:
        item = dense_item(dataset, index)
        return squashed(item.image, side), dense.prepare(item.target, side)

    def train(index: int, rng: np.random.Generator) -> Pair:
        if crop is None:
            return plain(index)
        item = dense_item(dataset, index)
        return augmented(item.image, dense.convert(item.target), dense.label, side, crop, rng)

    def test(index: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        item = dense_item(dataset, index)
        return squashed(item.image, side), answers.of(index, item)

    task = BankTask(
        name=dense.name,
        channels=dense.channels,
        dense=True,
        dtype=dense.dtype,
        loss=dense.loss,
        loss_name=dense.loss_name,
        scorers=tuple(partial(dense.scorer, protocol) for protocol in answers.protocols),
        identity=dataset.kind,
    )
    return Examples(
        name=dataset.name,
        count=len(dataset),
        task=task,
        train=train,
        plain=plain,
        test=test,
        check=partial(dense.require_targets, dataset),
        place=place_of(dataset),
        facts=train_facts(dataset, dense.bounds),
    )


def class_examples(dataset: LabelledImages, config: BankConfig) -> Examples:
    """Classification on pooled features: a map of one cell, and a label of one pixel."""
    refuse_empty(dataset, place_of(dataset))
    side, crop = config.resolution, config.augmentation
    if isinstance(crop, CropAugmentation):
        raise ValueError("augmentation: classification takes data.transforms.Augmentation, or None")
    if any(head != "linear" for head in config.heads):
        raise ValueError(f"heads: pooled features have a linear probe only, not {config.heads}")

    def plain(index: int) -> Pair:
        image, label = class_item(dataset, index)
        return squashed(image, side), np.array([[label]])

    def train(index: int, rng: np.random.Generator) -> Pair:
        if crop is None:
            return plain(index)
        image, label = class_item(dataset, index)
        view = draw_view(image.shape[0], image.shape[1], crop, rng)
        return view_image(image, view, (side, side)), np.array([[label]])

    def test(index: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        image, label = plain(index)
        return image, (label,)

    task = BankTask(
        name="classification",
        channels=len(dataset.classes),
        dense=False,
        dtype=torch.int64,
        loss=class_loss,
        loss_name="cross-entropy",
        scorers=(partial(AccuracyScorer, len(dataset.classes)),),
        identity=dataset.classes,
    )
    return Examples(
        name=dataset.name,
        count=len(dataset),
        task=task,
        train=train,
        plain=plain,
        test=test,
        check=lambda: None,
        place=place_of(dataset),
    )


def squashed(image: np.ndarray, side: int) -> np.ndarray:
    """A whole picture (H, W, 3) at (side, side, 3) uint8."""
    return view_image(image, WHOLE, (side, side))
