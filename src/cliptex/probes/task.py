"""What dense probes and classification learn from a data set, and how they are scored.

Targets and losses are rules of the kind of label (paper, section 4.3). A class is a label of one
pixel, and pooled features are a map of one cell, so that classification needs no trainer of its
own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.data.transforms import Augmentation, View, draw_view, view_image
from cliptex.datasets.protocol import (
    DenseDataset,
    DenseItem,
    DetectionDataset,
    LabelledImages,
    refuse_empty,
)
from cliptex.labels.kinds import Box, Kind
from cliptex.metrics.scorers import WHOLE, AccuracyScorer, Depths, Protocol, Scorer
from cliptex.probes.augment import CropAugmentation, augmented
from cliptex.probes.config import MapConfig

Probed = DenseDataset | LabelledImages | DetectionDataset
Pair = tuple[np.ndarray, np.ndarray]  # (r, r, 3) uint8 and a target
Loss = Callable[[Tensor, Tensor], Tensor]
"""(M, K, g, g) raw outputs and their (M, g, g, ...) targets -> scalar mean."""
DIGEST_PICTURES = 16


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """What heads learn: `outputs` per cell against targets of `dtype`; `dense` reads the map.

    convert: a ground truth of kind `truth` -> what is learnt, a label of kind `label` (None: a
        class).
    scorer: makes the scorer of a protocol; rates are chosen by the first of `protocols`.
    bounds: metres of depth, outside which nothing is learnt.
    """

    name: str
    outputs: int
    dtype: torch.dtype
    loss: Loss
    loss_name: str
    scorer: Callable[[Protocol], Scorer]
    convert: Callable[[Any], Any]
    protocols: tuple[Protocol, ...]
    label: Kind | None = None
    truth: Kind | None = None
    bounds: tuple[float, float] | None = None

    @property
    def dense(self) -> bool:
        """Whether heads read the map, and not the pooled features."""
        return self.label is not None

    def target(self, truth: Any, side: int) -> np.ndarray:
        """The training target of a whole picture, squashed to a square: (side, side, ...), (1, 1)
        of a class."""
        if self.label is None:
            return np.array([[truth]])
        return self.label.resize(self.convert(truth), (side, side))


def dense_task(kind: Kind, config: MapConfig) -> ProbeTask:
    """What a head learns from labels of a kind, by the kind's rules (`labels.kind.Kind`)."""
    label, bounds = kind.probe_kind, config.depth_range
    return ProbeTask(
        name=kind.task,
        outputs=kind.probe_channels,
        dtype=getattr(torch, kind.probe_dtype),
        loss=kind.probe_loss,
        loss_name=kind.probe_loss_name,
        scorer=lambda protocol: kind.probe_scorer(protocol, config.things),
        convert=lambda truth: kind.probe_target(truth, bounds),
        protocols=config.protocols or (kind.probe_protocol,),
        label=label,
        truth=kind,
        bounds=bounds if kind.probe_bounded else None,
    )


def classification(classes: Sequence[str], config: MapConfig) -> ProbeTask:
    """Cross-entropy on pooled features, and accuracy."""
    return ProbeTask(
        name="classification",
        outputs=len(classes),
        dtype=torch.int64,
        loss=lambda out, y: F.cross_entropy(out, y.long()),
        loss_name="cross-entropy",
        scorer=lambda _: AccuracyScorer(len(classes)),
        convert=int,
        protocols=(WHOLE,),
    )


def task_of(dataset: DenseDataset | LabelledImages, config: MapConfig) -> ProbeTask:
    """What a probe learns from a data set: dense labels of its kind, or classes."""
    kind: Kind | None = getattr(dataset, "kind", None)
    if kind is None:
        return classification(getattr(dataset, "classes", ()), config)
    return dense_task(kind, config)


class MapSplit:
    """One split of a data set of dense labels or classes, for one task.

    Pictures are squashed to the resolution. ValueError where the set is empty, has no probe, or an
    item is not as `DenseItem` or `LabelledImages` say.
    """

    def __init__(
        self,
        dataset: Any,
        config: MapConfig,
        truths: Mapping[str, DenseDataset] | None = None,
    ) -> None:
        """`truths` hold, by protocol, sets of the same pictures with other ground truths to score
        on."""
        self.name, self.place = dataset.name, place_of(dataset)
        refuse_empty(dataset, self.place)
        self.dataset, self.probe = dataset, task_of(dataset, config)
        self.task, self.side = self.probe.name, config.resolution
        self.identity = identity_of_set(dataset)
        self._read = dense_item if self.probe.dense else class_item
        self._sets, self.protocols = truths_of(dataset, self.probe.protocols, truths)

    def __len__(self) -> int:
        return len(self.dataset)

    def plain(self, index: int) -> Pair:
        """Squashed picture and training target, without augmentation."""
        image, truth = self._read(self.dataset, index)
        return squashed(image, self.side), self.probe.target(truth, self.side)

    def drawn(
        self, index: int, crop: CropAugmentation | Augmentation | None, rng: np.random.Generator
    ) -> Pair:
        """Augmented picture and training target at the resolution."""
        if crop is None:
            return self.plain(index)
        image, truth = self._read(self.dataset, index)
        side, kind = self.side, self.probe.label
        if kind is None:
            assert isinstance(crop, Augmentation)  # `check_augmentation`
            view = draw_view(image.shape[0], image.shape[1], crop, rng)
            return view_image(image, view, (side, side)), self.probe.target(truth, side)
        assert isinstance(crop, CropAugmentation)
        return augmented(image, self.probe.convert(truth), kind, side, crop, rng)

    def test(self, index: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Squashed picture and its ground truths at their own size, one per protocol."""
        image, truth = self._read(self.dataset, index)
        if not self.probe.dense:
            return squashed(image, self.side), (np.array([[truth]]),)
        truths: list[Any] = [
            truth if one is self.dataset else dense_item(one, index)[1] for one in self._sets
        ]
        return squashed(image, self.side), tuple(truths)

    def scorers(self, rows: Sequence[int] | None, protocols: int | None) -> list[Scorer]:
        """Fresh ones for one head: one per protocol, or of the first `protocols`."""
        return [self.probe.scorer(protocol) for protocol in self.protocols[:protocols]]

    def check(self) -> None:
        """ValueError where no depth can be learnt from; most sets show one at once."""
        probe = self.probe
        if probe.bounds is None or probe.label is None:
            return
        for index in range(len(self)):
            if probe.label.valid(probe.convert(self._read(self.dataset, index)[1])).any():
                return
        raise ValueError(
            f"no pixel of the training set {self.name} lies within `depth_range` {probe.bounds}: "
            "depths are in metres, and the configuration's `depth_range` bounds them"
        )

    def check_augmentation(self, crop: CropAugmentation | Augmentation | None) -> None:
        """ValueError for one that is not of the task."""
        wanted = CropAugmentation if self.probe.dense else Augmentation
        if crop is not None and not isinstance(crop, wanted):
            raise ValueError(f"`augmentation`: {self.task} takes {wanted.__name__} or None")

    def facts(self) -> dict[str, object]:
        """What rows say of the set where it is trained on: which depths, those within bounds in
        metres, and which sets were joined."""
        bounds = self.probe.bounds
        facts: dict[str, object] = {}
        facts["train_depths"] = getattr(self.dataset, "depths", None)  # of sets that hold several
        facts["train_range"] = None if bounds is None else list(bounds)
        facts["train_sets"] = getattr(self.dataset, "joined", None)
        return {name: fact for name, fact in facts.items() if fact is not None}

    def digest(self) -> str:
        """Of the number of pictures, and of some of them with their targets: first, last, between.

        Another split, order or ground truth under the same name has another digest.
        """
        return digest_of(self.name, len(self), self.plain)


def squashed(image: np.ndarray, side: int) -> np.ndarray:
    """A whole picture (H, W, 3) at (side, side, 3) uint8."""
    return view_image(image, View(Box(), False), (side, side))


def truths_of(
    dataset: Any, protocols: Sequence[Protocol], others: Mapping[str, DenseDataset] | None
) -> tuple[tuple[Any, ...], tuple[Protocol, ...]]:
    """The set that each protocol scores on, and the protocol with the depths that it really has.

    `others` hold, by protocol, sets of the same pictures in the same order to use instead of
    `dataset`. A protocol that means other depths than the set gives says so in its name: `lasinger
    on depths`. ValueError for a set of another length or kind.
    """
    named = dict(others or {})
    sets: tuple[Any, ...] = tuple(named.get(protocol.name, dataset) for protocol in protocols)
    for one in sets:
        if len(one) != len(dataset) or identity_of_set(one) != identity_of_set(dataset):
            raise ValueError(f"{one.name} does not hold other ground truths of {dataset.name}")
    pairs = zip(protocols, sets, strict=True)
    return sets, tuple(_as_read(protocol, one) for protocol, one in pairs)


def _as_read(protocol: Protocol, dataset: DenseDataset) -> Protocol:
    read: Depths | None = getattr(dataset, "depths", None)  # of sets that hold several
    if read is None or protocol.depths in (None, read):
        return protocol.model_copy(update={"depths": read})
    name = f"{protocol.name} on {read}"
    return protocol.model_copy(update={"depths": read, "name": name})


def dense_item(dataset: DenseDataset, index: int) -> Pair:
    """Picture and target `index`; ValueError names set and index where they are not as agreed."""
    item: DenseItem = dataset[index]
    where = f"{dataset.name}, item {index}"
    height, width = _size(item.image, where)
    shape = np.shape(item.target)
    if shape[:2] != (height, width):
        raise ValueError(
            f"{where}: a target of shape {shape}, but its picture has {height}x{width} pixels "
            "(height x width): give both one size"
        )
    return item.image, item.target


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


def identity_of_set(dataset: Probed) -> object:
    """What two sets must share to belong to one probe: a kind, or classes."""
    return getattr(dataset, "kind", None) or getattr(dataset, "classes", None)


def place_of(dataset: Probed) -> str:
    """What messages call a set: the folder of its split where it says so, else its name."""
    return getattr(dataset, "place", dataset.name)


def check_sets(train: Probed, *others: Probed) -> None:
    """ValueError where a set is empty, or another differs from `train` in kind or classes."""
    for one in (train, *others):
        refuse_empty(one, place_of(one))
        identities = identity_of_set(train), identity_of_set(one)
        refuse_unlike(*identities, (place_of(train), place_of(one)))


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
    """Of a set's name and size, and of the `arrays` of 16 of its pictures, evenly spread."""
    rows = np.linspace(0, count - 1, min(count, DIGEST_PICTURES)).round().astype(int)
    found = hashlib.blake2b(f"{name} {count}".encode(), digest_size=16)
    for index in rows.tolist():
        for array in arrays(index):
            found.update(f"{array.shape} {array.dtype}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
