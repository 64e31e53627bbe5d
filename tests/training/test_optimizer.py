from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cliptex.training.optimizer import Ema, LossScale, build_optimizer, lr_at, set_lr


def test_schedule_worked_by_hand(configure) -> None:
    config = configure(lr=3e-5, min_lr=1e-6, warmup_init_lr=1e-6, warmup_steps=4)
    steps = 13  # warm-up at 0..3, the top at 4, eight more steps of cosine
    rates = [lr_at(config, step, steps) for step in range(steps)]
    assert rates[:5] == pytest.approx([1e-6, 8.25e-6, 15.5e-6, 22.75e-6, 3e-5])
    assert rates[8] == pytest.approx(15.5e-6)  # half way: the mean of both ends
    assert rates[6] == pytest.approx(1e-6 + 29e-6 * (1 + 0.5**0.5) / 2)  # a quarter: cos 45°
    assert rates[12] == pytest.approx(1e-6)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_schedule_is_the_librarys_for_clip_but_for_two_steps(configure) -> None:
    # corenet, optims/scheduler/cosine.py with is_iteration_based: period steps - warm-up + 1.
    steps, warmup = 400, 100
    config = configure(lr=1.0, min_lr=0.0, warmup_init_lr=0.0, warmup_steps=warmup)
    period = steps - warmup + 1
    apart = [
        abs(lr_at(config, k, steps) - (1 + math.cos(math.pi * (k - warmup) / period)) / 2)
        for k in range(warmup, steps)
    ]
    assert 0 < max(apart) < 1.9 / (steps - warmup)


def test_schedule_without_warmup_starts_at_the_top(configure) -> None:
    config = configure(lr=1.0, min_lr=0.0, warmup_steps=0)
    assert [lr_at(config, step, 3) for step in range(3)] == pytest.approx([1.0, 0.5, 0.0])


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))


def test_decay_spares_biases_norms_and_the_logit_scale(configure) -> None:
    clip, head = Tiny(), nn.Conv2d(2, 3, 1)
    optimizer = build_optimizer(clip, [head], configure(weight_decay=0.3))
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decay) == len([*clip.parameters(), *head.parameters()])
    assert decay[id(clip.linear.weight)] == decay[id(head.weight)] == 0.3
    for spared in (clip.linear.bias, *clip.norm.parameters(), clip.logit_scale, head.bias):
        assert decay[id(spared)] == 0.0


def test_added_modules_have_their_own_rate(configure) -> None:
    clip, head = Tiny(), nn.Conv2d(2, 3, 1)
    optimizer = build_optimizer(clip, [head], configure(head_lr_multiplier=10.0))
    set_lr(optimizer, 0.01)
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rate[id(clip.linear.weight)] == rate[id(clip.logit_scale)] == 0.01
    assert rate[id(head.weight)] == rate[id(head.bias)] == pytest.approx(0.1)


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
