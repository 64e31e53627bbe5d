from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cliptex.training.state import Ema, LossScale, Progress


def test_loss_scale_halves_and_doubles_like_torch() -> None:
    mine = LossScale(enabled=True)
    theirs = torch.amp.GradScaler("cpu")
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for step in range(2010):
        finite = step not in (3, 4)
        weight.grad = torch.tensor([1.0 if finite else math.inf])
        theirs.scale(torch.ones(()))
        theirs.step(optimizer)
        theirs.update()
        mine.update(finite)
        assert mine.value == theirs.get_scale(), step
    assert mine.value == 65_536 / 4 * 2


def test_loss_scale_does_nothing_where_it_is_not_needed() -> None:
    scale = LossScale(enabled=False)
    scale.update(False)
    assert scale.value == 1


def test_ema_follows_the_formula_and_swaps() -> None:
    model = nn.Linear(2, 1, bias=False)
    ema = Ema(model, 0.25)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    ema.update()
    torch.testing.assert_close(ema.tensors()["weight"], start + 0.25)
    with ema.in_place():
        torch.testing.assert_close(model.weight.detach(), start + 0.25)
    torch.testing.assert_close(model.weight.detach(), start + 1)
    other = Ema(nn.Linear(2, 1, bias=False), 0.25)
    other.load(ema.tensors())
    assert torch.equal(other.tensors()["weight"], ema.tensors()["weight"])


def test_progress_counts_and_comes_back() -> None:
    progress = Progress(LossScale(enabled=False))
    progress.add(2.0, applied=True)
    progress.add(math.nan, applied=False)
    progress.add(1.0, applied=True)
    assert (progress.skipped, progress.in_row) == (1, 0)
    assert progress.loss == pytest.approx(0.98 * 2 + 0.02 * 1)
    progress.add(math.inf, applied=False)
    other = Progress(LossScale(enabled=False))
    other.load(progress.notes())
    assert other == progress and other.in_row == 1


def test_an_overflow_of_float16_is_hopeless_only_when_the_scale_is_spent() -> None:
    progress = Progress(LossScale(enabled=True, value=4.0))
    for _ in range(2):
        progress.add(1.0, applied=False)
        progress.scale.update(False)
    assert (progress.skipped, progress.in_row) == (2, 0)
    progress.add(1.0, applied=False)
    assert progress.in_row == 1
