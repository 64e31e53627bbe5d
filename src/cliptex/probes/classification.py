"""The linear classifier on the encoder's pooled features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cliptex.console import track
from cliptex.datasets.protocol import LabelledImages
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import ProbeConfig
from cliptex.probes.features import FeatureMemory, FeatureReader, proven_frozen
from cliptex.probes.fit import Heads, TrainData
from cliptex.probes.items import check_sets, class_item
from cliptex.probes.outcome import ProbeOutcome
from cliptex.probes.scorers import AccuracyScorer
from cliptex.probes.scores import Naming, Tested, rows_of
from cliptex.probes.select import chosen_head


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
    memory: FeatureMemory | None = None,
) -> ProbeOutcome:
    """Train a linear classifier on pooled features of `train`, score its accuracy on `test`.

    A vector is a map of one cell and a class a label of one pixel, so heads, rates and selection
    are those of the dense probes. `val`, `memory` and errors as in `run_dense_probe`.
    """
    check_sets(train, test, *([] if val is None else [val]))
    label = f"{model}: classification probe on {test.name}"
    with proven_frozen(encoder) as sha:
        reader = FeatureReader(encoder, config, fingerprint=sha, memory=memory, dense=False)
        data = read_pooled(reader, train, label=f"{label}, features")
        held = None if val is None else read_pooled(reader, val, label=f"{label}, validation")

        def validate(heads: Heads, rows: Tensor | None) -> Sequence[AccuracyScorer]:
            if rows is None:
                assert held is not None
                return score(heads, held)
            return score(heads, TrainData(data.maps[rows], data.targets[rows]))

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
    size = reader.config.extract_batch
    pooled: list[Tensor] = []
    labels: list[int] = []
    for start in track(range(0, len(dataset), size), label=label):
        items = [class_item(dataset, i) for i in range(start, min(start + size, len(dataset)))]
        pooled += [features.pooled for features in reader.read([image for image, _ in items])]
        labels += [index for _, index in items]
    return TrainData(torch.stack(pooled)[:, :, None, None], torch.tensor(labels)[:, None, None])


def score(heads: Heads, data: TrainData) -> list[AccuracyScorer]:
    """One scorer per head, filled with all rows of `data`."""
    out = heads(data.maps)  # (N, R, K, 1, 1)
    scorers = [AccuracyScorer(heads.weight.shape[1]) for _ in range(len(heads))]
    for predictions, target in zip(out, data.targets.numpy(), strict=True):
        for prediction, scorer in zip(predictions, scorers, strict=True):
            scorer.add(prediction, target)
    return scorers
