"""Controls that never look at a picture: what position and class frequency alone give."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch.nn import functional as F

from cliptex.console import track
from cliptex.datasets.protocol import DenseDataset, LabelledImages
from cliptex.labels.kinds import ClassMap
from cliptex.probes.config import ProbeConfig
from cliptex.probes.dense import probe_task, upsample
from cliptex.results import Result

MODEL = "baseline-mean"


def run_dense_baseline(
    train: DenseDataset, test: DenseDataset, config: ProbeConfig, *, model: str = MODEL
) -> list[Result]:
    """Score the mean ground truth of `train`, per position, on `test`; rows with probe None.

    The mean is that of one-hot classes, disparities or normals at the probe's resolution.
    """
    task = probe_task(train.kind, config)
    side = config.resolution
    total = torch.zeros(task.channels, side, side, dtype=torch.float64)
    count = torch.zeros(side, side, dtype=torch.float64)
    for i in track(range(len(train)), label=f"{model} on {train.name}"):
        target = torch.from_numpy(np.ascontiguousarray(task.prepare(train[i].target, side)))
        if isinstance(train.kind, ClassMap):
            valid = target != train.kind.ignore
            hot = F.one_hot(torch.where(valid, target, 0).long(), task.channels).permute(2, 0, 1)
            total += hot * valid
        elif target.ndim == 3:
            valid = (target != 0).any(-1)
            total[:3] += target.permute(2, 0, 1)
        else:
            valid = torch.isfinite(target)
            total += torch.where(valid, target, 0)
        count += valid
    mean = (total / count.clamp(min=1)).float()  # (K, r, r)
    scorer = task.scorer()
    for i in track(range(len(test)), label=f"{model} on {test.name}, test"):
        target = test[i].target
        scorer.add(upsample(mean[None], target.shape[:2])[0], target)
    protocol = {"resolution": side, "prediction": "mean per position", **scorer.protocol()}
    return [
        Result(
            model=model,
            task=task.name,
            dataset=test.name,
            metric=name,
            value=score.value,
            better=score.better,
            n=len(test),
            seed=config.seed,
            protocol=protocol,
        )
        for name, score in scorer.metrics().items()
    ]


def run_majority_baseline(
    train: LabelledImages, test: LabelledImages, *, model: str = "baseline-majority", seed: int = 0
) -> Result:
    """Top-1 on `test` of always saying the commonest class of `train`."""
    label, _ = Counter(train[i][1] for i in range(len(train))).most_common(1)[0]
    hits = [test[i][1] == label for i in range(len(test))]
    return Result(
        model=model,
        task="classification",
        dataset=test.name,
        metric="top1",
        value=100 * float(np.mean(hits)),
        better="higher",
        n=len(test),
        seed=seed,
        protocol={"prediction": f"always {train.classes[label]!r}"},
    )
