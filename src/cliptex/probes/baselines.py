"""Controls that never look at a picture: what position and class frequency alone give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.console import track
from cliptex.datasets.folders import ImageFolder
from cliptex.datasets.protocol import DenseDataset, LabelledImages
from cliptex.labels.kinds import ClassMap
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.config import ProbeConfig
from cliptex.probes.controls import MEAN
from cliptex.probes.dense import upsample
from cliptex.probes.items import check_sets, dense_item
from cliptex.probes.protocol import truths_of
from cliptex.probes.scorers import AccuracyScorer
from cliptex.probes.scores import Naming, Tested, rows_of
from cliptex.probes.tasks import ProbeTask, probe_task
from cliptex.results import Result


def run_dense_baseline(
    train: DenseDataset,
    test: DenseDataset,
    config: ProbeConfig | BankConfig,
    truths: Mapping[str, DenseDataset] | None = None,
) -> list[Result]:
    """Score the mean ground truth of `train`, per position, on `test`; rows with probe None.

    The mean is that of one-hot classes, disparities or normals at the probe's resolution. `truths`
    hold, by protocol, sets of the test pictures with other ground truths to score on.
    """
    check_sets(train, test)
    task = probe_task(train.kind, config)
    mean = _mean_truth(train, task, config.resolution)
    answers = truths_of(test, task.protocols, truths)
    scorers = [task.scorer(protocol) for protocol in answers.protocols]
    for i in track(range(len(test)), label=f"{MEAN} on {test.name}, test"):
        for scorer, target in zip(scorers, answers.of(i, dense_item(test, i)), strict=True):
            scorer.add(upsample(mean[None], target.shape[:2])[0], target)
    tested = Tested(task=task.name, dataset=test.name, probe=None, n=len(test), seed=0)
    shared = {"resolution": config.resolution, "prediction": "mean per position"}
    return rows_of(scorers, tested, Naming(model=MEAN), shared)[0]


def _mean_truth(train: DenseDataset, task: ProbeTask, side: int) -> Tensor:
    """(K, side, side) float32; zero where no picture has a valid pixel."""
    total = torch.zeros(task.channels, side, side, dtype=torch.float64)
    count = torch.zeros(side, side, dtype=torch.float64)
    for i in track(range(len(train)), label=f"{MEAN} on {train.name}"):
        target = torch.from_numpy(
            np.ascontiguousarray(task.prepare(dense_item(train, i).target, side))
        )
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
    return (total / count.clamp(min=1)).float()


def run_majority_baseline(train: LabelledImages, test: LabelledImages) -> list[Result]:
    """Score on `test` always naming the commonest classes of `train`; rows with probe None."""
    check_sets(train, test)
    counts = np.bincount(_labels(train), minlength=len(train.classes))
    order = np.argsort(-counts, kind="stable")
    scores = torch.empty(len(counts))
    scores[order] = -torch.arange(len(counts), dtype=torch.float32)  # one order, without ties
    scorer = AccuracyScorer(len(train.classes))
    for label in _labels(test):
        scorer.add(scores[:, None, None], np.array(label))
    tested = Tested(task="classification", dataset=test.name, probe=None, n=len(test), seed=0)
    shared = {"prediction": f"always {train.classes[order[0]]!r}"}
    return rows_of([scorer], tested, Naming(model=MEAN), shared)[0]


def _labels(dataset: LabelledImages) -> list[int]:
    """Class indices; a set that knows its files' classes need not decode them."""
    if isinstance(dataset, ImageFolder):
        return [label for _, label in dataset.files]
    return [dataset[i][1] for i in range(len(dataset))]
