"""Running statistics of batch norms move once for a batch, however it is computed."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from cliptex.training.parallel import batch_norms, synchronise
from cliptex.training.setup import Run, prepare
from cliptex.training.step import agree, split, train_step

FAMILIES = ["corenet", "resnet", "timm-cnn"]


@pytest.fixture
def made(configure, tower):
    """A run in float32, without dropout, of a tower with batch norms."""

    def make(name: str, **changes) -> Run:
        sizes = ((64, 64),)
        config = configure("depth", model=tower(name), resolution=sizes, precision="fp32")
        dense = config.dense.model_copy(update={"dropout": 0.0})
        run = prepare(config.model_copy(update={"dense": dense, **changes}))
        run.engine.train()
        return run

    return make


def step(run: Run) -> bool:
    batch = run.dataset.batch(run.sampler, 0)
    agreed = agree(run.world, batch, run.config.accumulate, stop=False)
    return train_step(run, batch, agreed).applied


def buffers(run: Run) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in run.model.named_buffers()}


@pytest.mark.parametrize("name", FAMILIES)
def test_recomputed_blocks_do_not_count_twice(name: str, made) -> None:
    plain, again = made(name), made(name, activation_checkpointing=True)
    assert plain.norms and step(plain) and step(again)
    expected = buffers(plain)
    assert all(torch.equal(buffer, expected[n]) for n, buffer in buffers(again).items())
    weights = plain.model.state_dict()
    assert all(torch.equal(weight, weights[n]) for n, weight in again.model.state_dict().items())


def test_parts_count_once(made) -> None:
    run, by_hand = made("corenet", accumulate=2), made("corenet")
    batch = by_hand.dataset.batch(by_hand.sampler, 0)
    for part in split(batch, 2):
        by_hand.model.clip.image(part.images.float() / 255)
    assert step(run)
    assert [int(norm.num_batches_tracked) for norm in run.norms] == [2, 2]
    expected = buffers(by_hand)
    assert all(torch.equal(buffer, expected[n]) for n, buffer in buffers(run).items())


def test_a_skipped_step_moves_none(made) -> None:
    run = made("resnet")
    before = buffers(run)
    with torch.no_grad():
        run.model.clip.logit_scale.fill_(float("nan"))
    assert not step(run)
    assert all(torch.equal(buffer, before[n]) for n, buffer in buffers(run).items())


def test_synchronise__keeps_activations_inside_norms() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4), nn.BatchNorm2d(4)).eval()
    x = torch.randn(2, 3, 4, 4)
    expected = network(x)
    synchronise(network)
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in batch_norms(network))
    assert torch.equal(network(x), expected)
