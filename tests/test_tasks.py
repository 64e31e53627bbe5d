"""Each task: its kind, its loss over labels, the picture of what a head says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.losses import DenseTargets
from cliptex.tasks import TASKS

KINDS: dict[str, Kind] = {
    "segmentation": ClassMap(("background", "ball", "chair")),
    "depth": ScalarField("1/m"),
    "normals": UnitVector(),
    "edges": ScalarField("edge strength"),
}
CHANNELS = {"segmentation": 3, "depth": 1, "normals": 3, "edges": 1}


def targets(task: str, present: list[bool]) -> DenseTargets:
    batch = len(present)
    if task == "segmentation":
        target = torch.ones(batch, 4, 4, dtype=torch.uint8)
        target[~torch.tensor(present)] = 255
        return DenseTargets(target=target, valid=target != 255, present=torch.tensor(present))
    target = torch.ones(batch, CHANNELS[task], 4, 4)
    target[~torch.tensor(present)] = math.nan
    valid = target[:, 0].isfinite()
    return DenseTargets(target=target, valid=valid, present=torch.tensor(present))


def test_names_and_kinds() -> None:
    assert list(TASKS) == ["segmentation", "depth", "normals", "edges"]
    for name, task in TASKS.items():
        assert task.name == name and isinstance(KINDS[name], task.kind)
        assert KINDS[name].channels == CHANNELS[name]


@pytest.mark.parametrize(
    ("task", "expected"), [("segmentation", math.log(3)), ("depth", 1.0), ("edges", 1.0)]
)
def test_loss_golden(task: str, expected: float) -> None:
    prediction = torch.zeros(2, CHANNELS[task], 2, 2)
    assert TASKS[task].loss(prediction, targets(task, [True, True])).item() == pytest.approx(
        expected
    )


@pytest.mark.parametrize("task", list(TASKS))
def test_missing_labels_cost_nothing(task: str) -> None:
    prediction = torch.randn(3, CHANNELS[task], 2, 2, requires_grad=True)
    loss = TASKS[task].loss(prediction, targets(task, [True, False, True]))
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert gradient[1].abs().max() == 0 and gradient[0].abs().max() > 0
    nothing = TASKS[task].loss(prediction, targets(task, [False] * 3))
    assert nothing.item() == 0 and nothing.requires_grad


@pytest.mark.parametrize("task", list(TASKS))
def test_picture(task: str) -> None:
    prediction = np.random.default_rng(0).normal(size=(CHANNELS[task], 6, 5)).astype(np.float32)
    drawn = KINDS[task].draw(KINDS[task].from_output(prediction))
    assert drawn.shape == (6, 5, 3) and drawn.dtype == np.uint8 and drawn.std() > 0


@pytest.mark.parametrize("task", list(TASKS))
def test_labels_without_confidence_cost_nothing(task: str) -> None:
    prediction = torch.randn(2, CHANNELS[task], 2, 2, requires_grad=True)
    weight = torch.ones(2, 4, 4)
    weight[1] = 0
    loss = TASKS[task].loss(prediction, replace(targets(task, [True, True]), weight=weight))
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert gradient[1].abs().max() == 0 and gradient[0].abs().max() > 0
