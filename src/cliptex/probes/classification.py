"""The linear classifier on the encoder's pooled features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cliptex.datasets.protocol import LabelledImages
from cliptex.models.device import products
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import ProbeConfig
from cliptex.probes.features import FeatureReader, Memory, proven_frozen
from cliptex.probes.fit import Heads, TrainData
from cliptex.probes.items import check_sets, class_item
from cliptex.probes.outcome import ProbeOutcome
from cliptex.probes.scorers import AccuracyScorer
from cliptex.probes.scores import Naming, Tested, rows_of
from cliptex.probes.select import chosen_head
from cliptex.probes.space import Space

SCORED_TOGETHER = 1024  # vectors: seven rates of a thousand classes are 29 MB of outputs


def run_classification_probe(
    encoder: FrozenEncoder,
    train: LabelledImages,
    val: LabelledImages | None,
    test: LabelledImages,
    config: ProbeConfig,
    *,
    model: str,
    checkpoint: str = "",
    leak: bool = False,
    memory: Memory | None = None,
) -> ProbeOutcome:
    """Train a linear classifier on pooled features of `train`, score its accuracy on `test`.

    A vector is a map of one cell and a class a label of one pixel, so heads, rates and selection
    are those of the dense probes. `val`, `memory` and errors as in `run_dense_probe`.
    """
    check_sets(train, test, *([] if val is None else [val]))
    label = f"{model}: classification probe on {test.name}"
    with proven_frozen(encoder) as sha, products(config.head_precision):
        reader = FeatureReader(encoder, config, fingerprint=sha, memory=memory, dense=False)
        data = read_pooled(reader, train, label=f"{label}, features")
        held = None if val is None else read_pooled(reader, val, label=f"{label}, validation")

        def validate(heads: Heads, rows: Tensor | None) -> Sequence[AccuracyScorer]:
            if rows is None:
                assert held is not None
                return score(heads, held)
            return score(heads, data, rows)

        head, selection = chosen_head(
            data,
            class_loss,
            len(train.classes),
            config,
            validate=validate,
            split=val is not None,
            device=encoder.device,
        )
        scorer = score(head, read_pooled(reader, test, label=f"{label}, test"))[0]
    protocol = {
        **config.protocol(),
        "head": "linear with bias on pooled features",
        "loss": "cross-entropy",
        "train_images": len(train),
        **selection.protocol(),
        **reader.protocol(),
        **encoder.protocol(config.resolution),
        "encoder_sha256": sha,
    }
    tested = Tested(
        task="classification", dataset=test.name, probe="linear", n=len(test), seed=config.seed
    )
    naming = Naming(model=model, checkpoint=checkpoint, leak=leak)
    rows, per_image = rows_of([scorer], tested, naming, protocol)
    return ProbeOutcome(
        results=rows, per_image=per_image, head=head, config=config, validation=selection.scores
    )


def class_loss(out: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of (M, K, 1, 1) and classes (M, 1, 1)."""
    return torch.nn.functional.cross_entropy(out, y.long())


def read_pooled(reader: FeatureReader, dataset: LabelledImages, *, label: str) -> TrainData:
    """Pooled features (N, P, 1, 1) float32 and classes (N, 1, 1) int64 of a whole set."""
    config, n = reader.config, len(dataset)
    space = Space(config.scratch, config.memory_budget)
    labels = space.empty((n, 1, 1), torch.int64, f"labels of {dataset.name}")
    pooled: Tensor | None = None
    read = reader.stream(dataset.name, n, lambda i: class_item(dataset, i), label)
    for i, index, features in read:
        if pooled is None:
            pooled = space.empty((n, *features.shape), reader.dtype, f"features of {dataset.name}")
        pooled[i], labels[i] = features, index
    assert pooled is not None  # `check_sets` refuses an empty set
    return TrainData(pooled, labels)


def score(heads: Heads, data: TrainData, rows: Tensor | None = None) -> list[AccuracyScorer]:
    """One scorer per head, filled with the rows of `data`, a block of them at a time."""
    scorers = [AccuracyScorer(heads.weight.shape[1]) for _ in range(len(heads))]
    chosen = torch.arange(len(data.maps)) if rows is None else rows
    for block in chosen.split(SCORED_TOGETHER):
        out = heads(data.maps[block]).cpu()  # (B, R, K, 1, 1)
        for predictions, target in zip(out, data.targets[block].numpy(), strict=True):
            for prediction, scorer in zip(predictions, scorers, strict=True):
                scorer.add(prediction, target)
    return scorers
