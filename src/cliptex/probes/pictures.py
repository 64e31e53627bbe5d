"""Test images with their truth and what probes say of them, for the eye."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cliptex.datasets.protocol import DenseDataset
from cliptex.labels.kinds import Kind, ScalarField
from cliptex.models.encoder import FrozenEncoder
from cliptex.models.heads import upsample
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.dense import label_of, predict_dense
from cliptex.probes.examples import squashed
from cliptex.probes.features import encode
from cliptex.probes.outcome import ProbeOutcome
from cliptex.probes.run_bank import HeadOutcome


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One probe on some test images of a data set, each picture (H, W, 3) uint8.

    `note` says what a reader of the pictures must know.
    """

    dataset: str
    probe: str
    indices: tuple[int, ...]
    images: tuple[np.ndarray, ...]
    truths: tuple[np.ndarray, ...]
    predictions: tuple[np.ndarray, ...]
    note: str = ""

    def save(self, folder: Path) -> None:
        """`folder`/INDEX-{image,truth,prediction}.png."""
        folder.mkdir(parents=True, exist_ok=True)
        kinds = {"image": self.images, "truth": self.truths, "prediction": self.predictions}
        for kind, pictures in kinds.items():
            for index, picture in zip(self.indices, pictures, strict=True):
                Image.fromarray(picture).save(folder / f"{index:05d}-{kind}.png")


def picture_indices(count: int, wanted: int) -> tuple[int, ...]:
    """At most `wanted` evenly spaced ones of `count` test images."""
    return tuple(sorted({int(i) for i in np.linspace(0, count - 1, min(wanted, count))}))


def draw_linear(
    encoder: FrozenEncoder, outcome: ProbeOutcome, dataset: DenseDataset, count: int
) -> Drawn:
    """The linear probe of the fast recipe on `count` images."""

    def predict(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return predict_dense(encoder, outcome, images)

    return _drawn(dataset, count, {"linear": predict})[0]


def draw_bank(
    encoder: FrozenEncoder,
    outcomes: Sequence[HeadOutcome],
    dataset: DenseDataset,
    config: BankConfig,
    count: int,
) -> list[Drawn]:
    """Every kind of head of a bank on `count` images, by its first seed that did not diverge."""
    heads: dict[str, Callable[[Sequence[np.ndarray]], list[np.ndarray]]] = {}
    for outcome in outcomes:
        if outcome.results:
            heads.setdefault(outcome.member.key.head, _predict(encoder, outcome, dataset, config))
    return _drawn(dataset, count, heads)


def _predict(
    encoder: FrozenEncoder, outcome: HeadOutcome, dataset: DenseDataset, config: BankConfig
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    def predict(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        labels = []
        for image in images:
            seen = [squashed(image, config.resolution)]
            maps = encode(encoder, seen, dense=True, precision=config.precision)
            size = (image.shape[0], image.shape[1])
            out = upsample(outcome.member.predict(maps), size, align_corners=config.align_corners)
            labels.append(label_of(out[0].cpu(), dataset.kind))
        return labels

    return predict


def _drawn(
    dataset: DenseDataset,
    count: int,
    probes: dict[str, Callable[[Sequence[np.ndarray]], list[np.ndarray]]],
) -> list[Drawn]:
    indices = picture_indices(len(dataset), count)
    items = [dataset[index] for index in indices]
    images = [item.image for item in items]
    bare = Drawn(
        dataset=dataset.name,
        probe="",
        indices=indices,
        images=tuple(images),
        truths=tuple(draw_truth(dataset.kind, item.target) for item in items),
        predictions=(),
        note=_note(dataset.kind),
    )
    return [
        replace(
            bare,
            probe=name,
            predictions=tuple(draw_label(dataset.kind, label) for label in predict(images)),
        )
        for name, predict in probes.items()
    ]


def _note(kind: Kind) -> str:
    if isinstance(kind, ScalarField):
        return "Disparity, each picture over its own range: the nearer, the lighter."
    return ""


def draw_truth(kind: Kind, target: np.ndarray) -> np.ndarray:
    """Ground truth as (H, W, 3) uint8; depth in metres is drawn as disparity, as probes predict."""
    if isinstance(kind, ScalarField):
        target = np.divide(1.0, target, out=np.full(target.shape, np.nan), where=target > 0)
    return draw_label(kind, target)


def draw_label(kind: Kind, label: np.ndarray) -> np.ndarray:
    """A probe's label as (H, W, 3) uint8."""
    return (ScalarField(unit="1/m") if isinstance(kind, ScalarField) else kind).draw(label)
