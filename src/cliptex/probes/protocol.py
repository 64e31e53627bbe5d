"""How predictions become numbers: recorded objects, several of which may score the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cliptex.datasets.protocol import DenseDataset, DenseItem
from cliptex.metrics.scorers import (
    DEPTH_PROTOCOLS,
    EIGEN,
    EIGEN_RAW,
    LASINGER,
    WHOLE,
    Crop,
    Depths,
    Protocol,
)
from cliptex.models.config import HeadPrecision
from cliptex.probes.items import dense_item

__all__ = [
    "DEPTH_PROTOCOLS",
    "EIGEN",
    "EIGEN_RAW",
    "LASINGER",
    "WHOLE",
    "Crop",
    "Depths",
    "Protocol",
    "Truths",
    "head_facts",
    "train_facts",
    "truths_of",
]


def head_facts(precision: HeadPrecision) -> dict[str, object]:
    """What rows and states say of the heads' products, where they are not of float32."""
    return {} if precision == "fp32" else {"head_precision": precision}


@dataclass(frozen=True)
class Truths:
    """The ground truths of one set's pictures, one per protocol.

    `sets` read the same pictures in the same order; `protocols` say what was really read.
    """

    dataset: DenseDataset
    sets: tuple[DenseDataset, ...]
    protocols: tuple[Protocol, ...]

    def of(self, index: int, item: DenseItem) -> tuple[np.ndarray, ...]:
        """Those of the picture `item`, number `index`."""
        return tuple(
            item.target if one is self.dataset else dense_item(one, index).target
            for one in self.sets
        )


def truths_of(
    dataset: DenseDataset,
    protocols: Sequence[Protocol],
    others: Mapping[str, DenseDataset] | None = None,
) -> Truths:
    """The truths of `dataset`; `others` hold, by protocol, sets of its pictures to use instead.

    A protocol that means other depths than the set gives says so in its name: `lasinger on depths`.
    ValueError for a set of another length or kind.
    """
    sets = tuple((others or {}).get(protocol.name, dataset) for protocol in protocols)
    for one in sets:
        if len(one) != len(dataset) or one.kind != dataset.kind:
            raise ValueError(f"{one.name} does not hold other ground truths of {dataset.name}")
    pairs = zip(protocols, sets, strict=True)
    return Truths(dataset, sets, tuple(_as_read(protocol, one) for protocol, one in pairs))


def train_facts(
    train: DenseDataset, bounds: tuple[float, float] | None = None
) -> dict[str, object]:
    """What rows say of the set that heads learn from: which depths, those within `bounds` in
    metres, and which sets were joined."""
    facts: dict[str, object] = {}
    facts["train_depths"] = getattr(train, "depths", None)  # of sets that hold several
    facts["train_range"] = None if bounds is None else list(bounds)
    facts["train_sets"] = getattr(train, "joined", None)
    return {name: fact for name, fact in facts.items() if fact is not None}


def _as_read(protocol: Protocol, dataset: DenseDataset) -> Protocol:
    read: Depths | None = getattr(dataset, "depths", None)  # of sets that hold several
    if read is None or protocol.depths in (None, read):
        return protocol.model_copy(update={"depths": read})
    name = f"{protocol.name} on {read}"
    return protocol.model_copy(update={"depths": read, "name": name})
