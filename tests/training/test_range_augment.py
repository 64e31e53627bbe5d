"""Learnt ranges of brightness, contrast and noise, and their loss."""

from __future__ import annotations

import math

import pytest
import torch

from cliptex.training.loop import train
from cliptex.training.network import range_augment_of
from cliptex.training.range_augment import RangeAugment, mse_of
from cliptex.training.setup import prepare
from cliptex.training.step import agree, train_step


@pytest.fixture
def augment() -> RangeAugment:
    torch.manual_seed(0)
    return RangeAugment((40, 20)).train()


def test_psnr_and_mean_squared_error() -> None:
    assert mse_of(20 * math.log10(255)) == pytest.approx(1)  # 48.13 dB: one step of 255
    assert mse_of(40) == pytest.approx(6.5025) and mse_of(20) == pytest.approx(650.25)


def test_ranges_start_where_the_library_starts_them(augment: RangeAugment) -> None:
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    for name in ("brightness", "contrast"):
        low, high = (end.item() for end in augment.ends(name))
        assert low == pytest.approx(0.1 + 0.8 * sigmoid(0.5))
        assert high == pytest.approx(1.1 + 8.9 * sigmoid(1.5))
    low, high = (end.item() for end in augment.ends("noise"))
    assert low == pytest.approx(2.5e-5)
    assert high == pytest.approx(1e-4 + (1 - 1e-4) * sigmoid(0.1))


def test_the_target_falls_by_half_a_cosine(augment: RangeAugment) -> None:
    targets = []
    for step in (0, 5, 10):
        augment.set_progress(step, 11)
        targets.append(augment.target)
    assert targets == pytest.approx([6.5025, (6.5025 + 650.25) / 2, 650.25])


def test_evaluation_leaves_images_alone(augment: RangeAugment) -> None:
    images = torch.rand(4, 3, 8, 8)
    assert augment(images) is not images and augment.loss is not None
    assert augment.eval()(images) is images and augment.loss is None


def test_the_loss_is_that_of_the_images(augment: RangeAugment) -> None:
    images = torch.rand(6, 3, 8, 8)
    changed = augment(images)
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
    assert augment.loss is not None
    expected = 0.0
    for before, after in zip(images, changed, strict=True):
        error = (255 * (after - before)).square().mean().item() - 6.5025
        expected += abs(error) - 0.5 if abs(error) > 1 else error**2 / 2
    assert augment.loss.item() == pytest.approx(100 / 65025 * expected / 6, rel=1e-5)


@pytest.mark.parametrize("name", ["brightness", "contrast", "noise"])
def test_changes_golden(augment: RangeAugment, name: str) -> None:
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for ends in (augment.low, augment.high):
            ends[name].fill_(-30.0)  # both ends at the lower bound: 0.1 and 1.1, or 0 and 1e-4
    magnitudes = (0.1, 1.1) if name != "noise" else (0.0, 1e-4)
    torch.manual_seed(3)
    changed = augment._change(name, images)
    torch.manual_seed(3)
    drawn = torch.rand(2, 1, 1, 1)
    m = magnitudes[0] + (magnitudes[1] - magnitudes[0]) * drawn
    if name == "brightness":
        expected = m * images
    elif name == "contrast":
        expected = m * images + (1 - m) * images.mean((2, 3), keepdim=True)
    else:
        expected = images + m * torch.randn(images.shape)
    assert torch.allclose(changed, expected, atol=1e-6)


def test_half_of_the_images_see_each_change() -> None:
    torch.manual_seed(1)
    augment = RangeAugment((40, 20)).train()
    images = torch.rand(8, 3, 4, 4)
    differences = [(augment(images) - images).abs().amax((1, 2, 3)) for _ in range(5)]
    untouched = [int((difference == 0).sum()) for difference in differences]
    assert all(0 <= n <= 4 for n in untouched) and any(untouched)  # 1 in 8 of them on average


def test_the_loss_alone_moves_errors_to_the_target() -> None:
    torch.manual_seed(0)
    augment, images = RangeAugment((20, 20)).train(), torch.rand(64, 3, 8, 8)
    optimizer = torch.optim.Adam(augment.parameters(), lr=0.1)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        augment(images)
        assert augment.loss is not None
        augment.loss.backward()
        optimizer.step()
        losses.append(augment.loss.item())
    assert sum(losses[-20:]) < 0.4 * sum(losses[:20])


def test_a_run_learns_ranges_and_saves_clip_alone(configure, tmp_path) -> None:
    config = configure("depth", range_augment=(40, 20))
    run = prepare(config)
    augment = range_augment_of(run.model)
    assert augment is not None
    run.engine.train()
    batch = run.dataset.batch(run.sampler, 0)
    before = {name: p.clone() for name, p in augment.named_parameters()}
    report = train_step(run, batch, agree(run.world, batch, 1, stop=False))
    assert all(not torch.equal(p, before[name]) for name, p in augment.named_parameters())
    parts = sum(report.losses[name] for name in ("clip", "depth", "range_augment"))
    assert report.losses["total"] == pytest.approx(parts, rel=1e-5)
    final = train(config, tmp_path)
    assert sorted(path.name for path in final.iterdir()) == [
        "heads.safetensors",
        "model.json",
        "model.safetensors",
        "provenance.json",
    ]
    assert '"loss_range_augment"' in (tmp_path / "log.jsonl").read_text()


def test_off_it_is_not_there(configure) -> None:
    assert range_augment_of(prepare(configure("depth")).model) is None
