"""Linear probes for dense tasks: one point-wise convolution on the encoder's last map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.datasets.protocol import DenseDataset, DenseItem
from cliptex.labels.kinds import ClassMap, Kind, ScalarField
from cliptex.models.device import products
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import ProbeConfig
from cliptex.probes.features import FeatureReader, Memory, proven_frozen
from cliptex.probes.fit import Heads, TrainData
from cliptex.probes.items import check_sets, dense_item
from cliptex.probes.outcome import ProbeOutcome
from cliptex.probes.protocol import Truths, train_facts, truths_of
from cliptex.probes.scores import Naming, Scorer, Tested, rows_of
from cliptex.probes.select import Selection, Validate, chosen_head
from cliptex.probes.space import Space
from cliptex.probes.tasks import ProbeTask, probe_task


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
    memory: Memory | None = None,
    truths: Mapping[str, DenseDataset] | None = None,
) -> ProbeOutcome:
    """Train a linear probe on `train` and score it on `test`.

    The learning rate is chosen on `val`, or on a held-out part of `train` where that is None;
    `test` is read once, at the end, by the one chosen head. `memory` is shared among the probes
    of a model (`FeatureMemory`), or what a killed probe left (`StoredMemory`). `truths` hold, by
    protocol, sets of test's pictures with other ground truths.
    Raises FrozenEncoderChanged if the encoder is not what it was, ValueError if the sets are empty
    or of different kinds, an item is not as `DenseItem` says, or no depth is within `depth_range`.
    """
    check_sets(train, test, *([] if val is None else [val]))
    task = probe_task(train.kind, config)
    task.require_targets(train)
    answers = truths_of(test, task.protocols, truths)
    label = f"{model}: {task.name} probe on {test.name}"
    with proven_frozen(encoder) as sha, products(config.head_precision):
        reader = FeatureReader(encoder, config, fingerprint=sha, memory=memory)
        data = read_train(reader, train, task, label=f"{label}, features")
        validate = _validation(reader, data, train, val, task)
        head, selection = chosen_head(
            data,
            task.loss,
            task.channels,
            config,
            validate=validate,
            split=val is not None,
            device=encoder.device,
        )
        scorers = [task.scorer(protocol) for protocol in answers.protocols]
        score_dataset(reader, answers, head, [scorers], label=f"{label}, test")
    protocol = dense_protocol(task, config, selection, data, train)
    protocol |= {**reader.protocol(), **encoder.protocol(config.resolution), "encoder_sha256": sha}
    tested = Tested(
        task=task.name, dataset=test.name, probe="linear", n=len(test), seed=config.seed
    )
    naming = Naming(model=model, checkpoint=checkpoint, leak=leak)
    rows, per_image = rows_of(scorers, tested, naming, protocol)
    return ProbeOutcome(
        results=rows,
        per_image=per_image,
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
        scorers = [task.scorer(task.protocols[0]) for _ in range(len(heads))]
        panels = [[scorer] for scorer in scorers]
        if rows is not None:
            pairs = ((data.maps[i], (train[int(i)].target,)) for i in rows)
            score_pairs(pairs, heads, panels)
        elif val is not None:
            truths = truths_of(val, task.protocols[:1])
            score_dataset(reader, truths, heads, panels, label=f"{val.name}, validation")
        return scorers

    return validate


def dense_protocol(
    task: ProbeTask,
    config: ProbeConfig,
    selection: Selection,
    data: TrainData,
    train: DenseDataset,
) -> dict[str, object]:
    """What a dense row's value depends on, but for the scoring rules."""
    return {
        **config.protocol(),
        "head": "point-wise convolution with bias on the last map",
        "map": list(data.maps.shape[1:]),
        "loss": task.loss_name,
        "train_pixels": f"{config.pixels}x{config.pixels} drawn per picture and step",
        "train_images": len(data.maps),
        **train_facts(train, task.bounds),
        "interpolation": "bilinear, align_corners=False, to the ground truth's size",
        **selection.protocol(),
    }


def read_train(
    reader: FeatureReader, dataset: DenseDataset, task: ProbeTask, *, label: str
) -> TrainData:
    """Features and targets of a whole set, each picture read once."""
    config, n = reader.config, len(dataset)
    side = config.resolution
    space = Space(config.scratch, config.memory_budget)
    maps: Tensor | None = None
    shape = (n, side, side, *task.target_shape)
    targets = space.empty(shape, task.dtype, f"labels of {dataset.name}")
    for i, item, features in dense_features(reader, dataset, label):
        if maps is None:
            maps = space.empty((n, *features.shape), reader.dtype, f"features of {dataset.name}")
        maps[i] = features
        target = task.prepare(item.target, side)
        targets[i] = torch.from_numpy(np.ascontiguousarray(target)).to(task.dtype)
    assert maps is not None  # `check_sets` refuses an empty set
    return TrainData(maps, targets)


def dense_features(
    reader: FeatureReader, dataset: DenseDataset, label: str
) -> Iterator[tuple[int, DenseItem, Tensor]]:
    """Index, item and features of every picture of a set."""

    def picture(index: int) -> tuple[np.ndarray, DenseItem]:
        item = dense_item(dataset, index)
        return item.image, item

    return reader.stream(dataset.name, len(dataset), picture, label)


def score_dataset(
    reader: FeatureReader,
    truths: Truths,
    heads: Heads,
    panels: Sequence[Sequence[Scorer]],
    *,
    label: str,
) -> None:
    """Read a set once and add every picture to each head's scorers, one per ground truth."""
    read = dense_features(reader, truths.dataset, label)
    score_pairs(((f, truths.of(i, item)) for i, item, f in read), heads, panels)


def score_pairs(
    pairs: Iterable[tuple[Tensor, Sequence[np.ndarray]]],
    heads: Heads,
    panels: Sequence[Sequence[Scorer]],
) -> None:
    """Add (map (C, h, w), ground truths of one size) to each head's scorers, one per truth.

    One head at a time at the truth's size: all of them would be gigabytes for large pictures.
    """
    for features, targets in pairs:
        for out, scorers in zip(heads(features[None])[0], panels, strict=True):  # (K, h, w)
            prediction = upsample(out[None], targets[0].shape[:2])[0]  # (K, H, W)
            for scorer, target in zip(scorers, targets, strict=True):
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
        out = upsample(outcome.head(features[None])[0], image.shape[:2])[0].cpu()
        assert outcome.kind is not None
        predictions.append(label_of(out, outcome.kind))
    return predictions


def label_of(out: Tensor, kind: Kind) -> np.ndarray:
    """Raw outputs (K, H, W) on the CPU as a label in the array form of its kind."""
    if isinstance(kind, ClassMap):
        return out.argmax(0).numpy().astype(kind.dtype)
    if isinstance(kind, ScalarField):
        return out[0].numpy()
    return F.normalize(out[:3], dim=0).permute(1, 2, 0).numpy()
