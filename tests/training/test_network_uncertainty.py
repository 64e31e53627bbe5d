"""Learnt weights of the tasks (Kendall et al. 2018)."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from cliptex.training.loop import train
from cliptex.training.network import Uncertainty
from cliptex.training.setup import prepare
from cliptex.training.step import agree, compute_losses, train_step

ALL = ("segmentation", "depth", "normals")


def test_golden() -> None:
    weigh = Uncertainty(["depth"])
    s = weigh.log_variance["depth"]
    with torch.no_grad():
        s.fill_(math.log(4))
    loss = torch.tensor(3.0, requires_grad=True)
    weighed = weigh("depth", loss)
    assert weighed.item() == pytest.approx(3 / 4 + math.log(4) / 2)
    assert weigh("depth", loss, constant=False).item() == pytest.approx(3 / 4)
    of_loss, of_s = torch.autograd.grad(weighed, (loss, s))
    assert of_loss.item() == pytest.approx(1 / 4) and of_s.item() == pytest.approx(0.5 - 3 / 4)


def test_a_settled_variance_weighs_a_task_by_half_its_inverse_loss() -> None:
    weigh = Uncertainty(["big", "small"])
    optimizer = torch.optim.SGD(weigh.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        (weigh("big", torch.tensor(20.0)) + weigh("small", torch.tensor(0.01))).backward()
        optimizer.step()
    weights = {task: math.exp(-s.item()) for task, s in weigh.log_variance.items()}
    assert weights == pytest.approx({"big": 1 / 40, "small": 50}, rel=0.05)


def test_the_first_gradient_is_that_of_the_fixed_weights(configure) -> None:
    grads = []
    for changes in ({}, {"uncertainty": True}):
        run = prepare(configure(*ALL, precision="fp32", **changes))
        run.model.eval()
        batch = run.dataset.batch(run.sampler, 0)
        losses = compute_losses(run, batch, agree(run.world, batch, 1, stop=False))
        losses["total"].backward()
        grads.append({n: p.grad for n, p in run.model.named_parameters()})
        seen = losses
    before, after = grads
    for name, gradient in before.items():
        assert torch.allclose(gradient, after[name], rtol=1e-5, atol=1e-7), name
    for task, weight in (("segmentation", 0.1), ("depth", 1.0), ("normals", 1.0)):
        of_s = after[f"uncertainty.log_variance.{task}"]
        assert of_s.item() == pytest.approx(weight * (0.5 - seen[task].item()), rel=1e-4)


def test_parts_of_a_batch_learn_the_same(configure) -> None:
    after = []
    for parts in (1, 4):
        changes = {"accumulate": parts, "dense": {"width": 16, "dropout": 0.0}}
        run = prepare(configure(*ALL, precision="fp32", uncertainty=True, **changes))
        batch = run.dataset.batch(run.sampler, 0)
        report = train_step(run, batch, agree(run.world, batch, parts, stop=False))
        grads = [p.grad for n, p in run.model.named_parameters() if n.startswith("uncertainty")]
        after.append((report.losses["total"], torch.stack(grads)))
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-5)
    assert torch.allclose(after[0][1], after[1][1], atol=1e-5)


def test_all_that_is_learnt_beside_goes_on_after_an_interruption(configure, tmp_path) -> None:
    config = configure(
        "depth",
        uncertainty=True,
        range_augment=(40, 20),
        contrast="sigmoid",
        checkpoint_every=3,
        ema=0.1,
    )
    whole = train(config, tmp_path / "whole")
    left = tmp_path / "left" / "checkpoints" / "step-00000003"
    shutil.copytree(tmp_path / "whole" / "checkpoints" / left.name, left)
    resumed = train(config, tmp_path / "left")
    for name in ("model.safetensors", "heads.safetensors"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()
    lines = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("whole", "left")]
    last = [json.loads(found[-1]) for found in lines]
    assert last[0]["loss"] == last[1]["loss"] and len(lines[1]) == 3
    heads = load_file(whole / "heads.safetensors")  # what a model needs no more is left out
    assert {name.split(".")[0] for name in heads} == {"pyramid", "heads"}


def test_without_tasks_there_is_nothing_to_weigh(configure) -> None:
    with pytest.raises(ValueError, match="`uncertainty` weighs .* `tasks` is empty"):
        configure(uncertainty=True)
