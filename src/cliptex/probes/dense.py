"""Linear probes for dense tasks: one point-wise convolution on the encoder's last map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.console import track
from cliptex.datasets.protocol import DenseDataset, DenseItem
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.losses import nll_angmf, scale_shift_invariant
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import ProbeConfig
from cliptex.probes.features import (
    FeatureMemory,
    FeatureReader,
    Space,
    proven_frozen,
    space_for,
)
from cliptex.probes.fit import Heads, Loss, TrainData
from cliptex.probes.outcome import ProbeOutcome
from cliptex.probes.scores import (
    DepthScorer,
    NormalsScorer,
    Scorer,
    ScoringRules,
    SegmentationScorer,
    disparity_of,
)
from cliptex.probes.select import Selection, Validate, chosen_head
from cliptex.results import Result


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """What a dense probe needs to know about its kind of label.

    `convert` turns a ground truth into the training target, a label of kind `label`; `loss` takes
    raw (M, K, g, g) and targets (M, g, g, ...).
    """

    name: str
    channels: int
    dtype: torch.dtype
    target_shape: tuple[int, ...]  # behind (N, r, r)
    label: Kind
    convert: Callable[[np.ndarray], np.ndarray]
    loss: Loss
    loss_name: str
    scorer: Callable[[], Scorer]

    def prepare(self, target: np.ndarray, side: int) -> np.ndarray:
        """The training target of a whole picture, squashed to a square."""
        return self.label.resize(self.convert(target), (side, side))


def probe_task(kind: Kind, rules: ScoringRules) -> ProbeTask:
    """Cross-entropy, scale-shift-invariant in disparity, or NLL-AngMF (paper section 4.3)."""
    if isinstance(kind, ClassMap):
        return ProbeTask(
            name="segmentation",
            channels=len(kind.classes),
            dtype=torch.uint8 if kind.ignore == 255 else torch.int32,
            target_shape=(),
            label=kind,
            convert=np.asarray,
            loss=lambda out, y: cross_entropy(out, y, kind.ignore),
            loss_name="cross-entropy",
            scorer=lambda: SegmentationScorer(kind, rules),
        )
    if isinstance(kind, ScalarField):
        if kind.unit != "m":
            raise ValueError(f"a depth probe needs ground truth in metres, not {kind.unit!r}")
        return ProbeTask(
            name="depth",
            channels=1,
            dtype=torch.float32,
            target_shape=(),
            label=ScalarField(unit="1/m"),
            convert=lambda target: disparity_of(target, rules.depth_range),
            loss=depth_loss,
            loss_name="scale-shift-invariant L1 in disparity",
            scorer=lambda: DepthScorer(rules),
        )
    assert isinstance(kind, UnitVector)
    return ProbeTask(
        name="normals",
        channels=4,
        dtype=torch.float16,
        target_shape=(3,),
        label=kind,
        convert=np.asarray,
        loss=normals_loss,
        loss_name="NLL-AngMF",
        scorer=lambda: NormalsScorer(rules),
    )


def cross_entropy(out: Tensor, y: Tensor, ignore: int) -> Tensor:
    """Mean cross-entropy over valid pixels; 0 where there is none."""
    labels = y.long()
    total = F.cross_entropy(out, labels, ignore_index=ignore, reduction="sum")
    return total / (labels != ignore).sum().clamp(min=1)


def depth_loss(out: Tensor, y: Tensor) -> Tensor:
    """Scale-shift-invariant L1 over the drawn pixels of (M, 1, g, g) and (M, g, g) disparities."""
    valid = torch.isfinite(y)
    return scale_shift_invariant(out[:, 0], torch.where(valid, y, 0.0), valid)


def normals_loss(out: Tensor, y: Tensor) -> Tensor:
    """NLL-AngMF of raw (M, 4, g, g) and unit normals (M, g, g, 3), zero where invalid."""
    target = y.float().permute(0, 3, 1, 2)  # (M, 3, g, g)
    return nll_angmf(out, target, (target != 0).any(1))


def run_dense_probe(
    encoder: FrozenEncoder,
    train: DenseDataset,
    val: DenseDataset | None,
    test: DenseDataset,
    config: ProbeConfig,
    *,
    model: str,
    checkpoint: str = "",
    leak: bool = False,
    memory: FeatureMemory | None = None,
) -> ProbeOutcome:
    """Train a linear probe on `train` and score it on `test`.

    The learning rate is chosen on `val`, or on a held-out part of `train` where that is None;
    `test` is read once, at the end, by the one chosen head. `memory` is shared among the probes
    of a model. Raises FrozenEncoderChanged if the encoder is not what it was, ValueError if the
    sets are of different kinds.
    """
    for other in (test,) if val is None else (val, test):
        if other.kind != train.kind:
            raise ValueError(f"{other.name} is {other.kind}, {train.name} is {train.kind}")
    task = probe_task(train.kind, config)
    label = f"{model}: {task.name} probe on {test.name}"
    with proven_frozen(encoder) as sha, space_for(config) as space:
        reader = FeatureReader(encoder, config, fingerprint=sha, memory=memory)
        data = read_train(reader, train, task, space, label=f"{label}, features")
        validate = _validation(reader, data, train, val, task)
        head, selection = chosen_head(
            data, task.loss, task.channels, config, validate=validate, split=val is not None
        )
        scorer = task.scorer()
        score_dataset(reader, test, head, [scorer], label=f"{label}, test")
        protocol = dense_protocol(task, config, selection, scorer, data)
    rows = [
        Result(
            model=model,
            checkpoint=checkpoint,
            task=task.name,
            dataset=test.name,
            probe="linear",
            metric=name,
            value=score.value,
            better=score.better,
            n=len(test),
            seed=config.seed,
            protocol={**protocol, "encoder_sha256": sha},
            leak=leak,
        )
        for name, score in scorer.metrics().items()
    ]
    return ProbeOutcome(
        results=rows,
        per_image=scorer.per_image(),
        head=head,
        config=config,
        kind=train.kind,
        validation=selection.scores,
    )


def _validation(
    reader: FeatureReader,
    data: TrainData,
    train: DenseDataset,
    val: DenseDataset | None,
    task: ProbeTask,
) -> Validate:
    """Scoring of heads on rows of train whose features are in `data`, or on `val`."""

    def validate(heads: Heads, rows: Tensor | None) -> list[Scorer]:
        scorers = [task.scorer() for _ in range(len(heads))]
        if rows is not None:
            pairs = ((data.maps[i], train[int(i)].target) for i in rows)
            score_pairs(pairs, heads, scorers)
        elif val is not None:
            score_dataset(reader, val, heads, scorers, label=f"{val.name}, validation")
        return scorers

    return validate


def dense_protocol(
    task: ProbeTask, config: ProbeConfig, selection: Selection, scorer: Scorer, data: TrainData
) -> dict[str, object]:
    """What a dense row's value depends on."""
    return {
        **config.protocol(),
        "head": "point-wise convolution with bias on the last map",
        "map": list(data.maps.shape[1:]),
        "loss": task.loss_name,
        "train_pixels": f"{config.pixels}x{config.pixels} drawn per picture and step",
        "train_images": len(data.maps),
        "interpolation": "bilinear, align_corners=False, to the ground truth's size",
        **selection.protocol(),
        **scorer.protocol(),
    }


def batches(dataset: DenseDataset, size: int, label: str) -> Iterable[tuple[int, list[DenseItem]]]:
    """(index of the first, items) of consecutive runs of `size` items."""
    for start in track(range(0, len(dataset), size), label=label):
        stop = min(start + size, len(dataset))
        yield start, [dataset[i] for i in range(start, stop)]


def read_train(
    reader: FeatureReader, dataset: DenseDataset, task: ProbeTask, space: Space, *, label: str
) -> TrainData:
    """Features and targets of a whole set, each picture read once."""
    side, n = reader.config.resolution, len(dataset)
    maps: Tensor | None = None
    targets = space.empty((n, side, side, *task.target_shape), task.dtype)
    for start, items in batches(dataset, reader.config.extract_batch, label):
        for i, features in enumerate(reader.read([item.image for item in items]), start=start):
            assert features.dense is not None
            if maps is None:
                maps = space.empty((n, *features.dense.shape), reader.dtype)
            maps[i] = features.dense
            target = task.prepare(items[i - start].target, side)
            targets[i] = torch.from_numpy(np.ascontiguousarray(target)).to(task.dtype)
    if maps is None:
        raise ValueError(f"{dataset.name}: the training set is empty")
    return TrainData(maps, targets)


def score_dataset(
    reader: FeatureReader,
    dataset: DenseDataset,
    heads: Heads,
    scorers: Sequence[Scorer],
    *,
    label: str,
) -> None:
    """Read a set once and add every picture to each head's scorer."""
    for _, items in batches(dataset, reader.config.extract_batch, label):
        features = reader.read([item.image for item in items])
        pairs = ((f.dense, item.target) for f, item in zip(features, items, strict=True))
        score_pairs(pairs, heads, scorers)


def score_pairs(
    pairs: Iterable[tuple[Tensor | None, np.ndarray]], heads: Heads, scorers: Sequence[Scorer]
) -> None:
    """Add (map (C, h, w), ground truth) pairs to each head's scorer."""
    for dense, target in pairs:
        assert dense is not None
        out = upsample(heads(dense[None])[0], target.shape[:2])  # (R, K, H, W)
        for prediction, scorer in zip(out, scorers, strict=True):
            scorer.add(prediction, target)


def upsample(out: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear interpolation of (R, K, h, w) to `size`, align_corners off."""
    return F.interpolate(out, size=tuple(size), mode="bilinear", align_corners=False)


def predict_dense(
    encoder: FrozenEncoder, outcome: ProbeOutcome, images: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The probe's labels of (H_i, W_i, 3) uint8 pictures, in the array form of its kind.

    Depth probes give relative disparity (larger is nearer), not aligned to anything.
    """
    reader = FeatureReader(encoder, outcome.config, fingerprint="")
    predictions = []
    for image, features in zip(images, reader.read(images), strict=True):
        assert features.dense is not None
        out = upsample(outcome.head(features.dense[None])[0], image.shape[:2])[0]  # (K, H, W)
        if isinstance(outcome.kind, ClassMap):
            predictions.append(out.argmax(0).numpy().astype(outcome.kind.dtype))
        elif isinstance(outcome.kind, ScalarField):
            predictions.append(out[0].numpy())
        else:
            predictions.append(F.normalize(out[:3], dim=0).permute(1, 2, 0).numpy())
    return predictions
