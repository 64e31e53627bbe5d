"""Weights of the losses over labels: golden values by hand, and equality with the definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cliptex.losses import (
    DenseTargets,
    cell_cross_entropy,
    cell_l1,
    class_histogram,
    nll_angmf,
    scale_shift_invariant,
)

sides = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 30), st.integers(1, 30))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss, leaf)[0]


def test_cross_entropy_golden() -> None:
    # One cell, p = (1/4, 3/4). Class 0 weighs 0.5 + 0.25, class 1 weighs 1, one pixel is ignored.
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    labels = torch.tensor([[[0, 255], [1, 0]]], dtype=torch.uint8)
    weight = torch.tensor([[[0.5, 1.0], [1.0, 0.25]]])
    expected = (0.75 * math.log(4) + 1.0 * math.log(4 / 3)) / 1.75
    assert cell_cross_entropy(logits, labels, weight=weight).item() == pytest.approx(expected)


def test_histogram_golden() -> None:
    labels = torch.tensor([[[0, 1, 2, 255], [1, 1, 2, 2]]])
    weight = torch.tensor([[[0.5, 0.25, 1.0, 1.0], [0.5, 0.0, 0.125, 1.0]]])
    counts = class_histogram(labels, (1, 3, 1, 2), weight=weight)
    assert counts[0, :, 0].tolist() == [[0.5, 0], [0.75, 0], [0, 2.125]]


@settings(max_examples=40, deadline=None)
@given(sides, st.integers(0, 2**31))
def test_cross_entropy_equals_its_definition(size: tuple[int, int, int, int], seed: int) -> None:
    h, w, big_h, big_w = size
    logits = randn(2, 5, h, w, seed=seed).requires_grad_()
    labels = (5 * rand(2, big_h, big_w, seed=seed + 1)).long()
    labels[rand(2, big_h, big_w, seed=seed + 2) < 0.3] = 255
    labels[0, 0, 0] = 3
    weight = rand(2, big_h, big_w, seed=seed + 3)
    full = F.interpolate(logits, size=(big_h, big_w), mode="nearest")
    each = F.cross_entropy(full, labels, ignore_index=255, reduction="none")
    expected = (weight * each).sum() / weight[labels != 255].sum()
    ours = cell_cross_entropy(logits, labels, weight=weight)
    assert abs(ours.item() - expected.item()) <= 1e-12
    assert (gradient(ours, logits) - gradient(expected, logits)).abs().max() <= 1e-12


def test_l1_golden() -> None:
    prediction = torch.tensor([[[[1.0, 2.0]]]])
    target = torch.tensor([[[[0.0, 1.5, math.nan, 4.0]]]])
    valid = torch.tensor([[[True, True, False, True]]])
    weight = torch.tensor([[[1.0, 0.5, 1.0, 0.25]]])
    expected = (1 * 1 + 0.5 * 0.5 + 0.25 * 2) / 1.75
    assert cell_l1(prediction, target, valid, weight=weight).item() == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(sides, st.integers(0, 2**31))
def test_l1_equals_its_definition(size: tuple[int, int, int, int], seed: int) -> None:
    h, w, big_h, big_w = size
    prediction = randn(2, 3, h, w, seed=seed).requires_grad_()
    target = randn(2, 3, big_h, big_w, seed=seed + 1)
    valid = randn(2, big_h, big_w, seed=seed + 2) > -0.5
    valid[0, 0, 0] = True
    weight = rand(2, big_h, big_w, seed=seed + 3)
    error = (F.interpolate(prediction, size=(big_h, big_w), mode="nearest") - target).abs()
    masked = weight * valid
    expected = (masked[:, None] * error).sum() / (3 * masked.sum())
    ours = cell_l1(prediction, target.masked_fill(~valid[:, None], math.nan), valid, weight=weight)
    assert abs(ours.item() - expected.item()) <= 1e-12
    assert (gradient(ours, prediction) - gradient(expected, prediction)).abs().max() <= 1e-12


def test_scale_and_shift_golden() -> None:
    # The outlier weighs nothing: the rest, y = 2 p + 1, is matched exactly by the least squares.
    p, y = torch.tensor([[[0.0, 1.0, 2.0, 1.0]]]), torch.tensor([[[1.0, 3.0, 5.0, 90.0]]])
    valid, weight = torch.ones(1, 1, 4).bool(), torch.tensor([[[1.0, 0.5, 1.0, 0.0]]])
    assert scale_shift_invariant(p, y, valid, weight=weight).item() == pytest.approx(0, abs=1e-6)
    # p = 0, 0, 1 with y = 0, 3, 7: the line passes the weighted mean 2 and 7; residuals 2, 1, 0.
    p, y = torch.tensor([[[0.0, 0.0, 1.0]]]), torch.tensor([[[0.0, 3.0, 7.0]]])
    valid, weight = torch.ones(1, 1, 3).bool(), torch.tensor([[[0.25, 0.5, 0.5]]])
    loss = scale_shift_invariant(p, y, valid, weight=weight)
    assert loss.item() == pytest.approx((0.25 * 2 + 0.5 * 1) / 1.25)


def test_scale_and_shift_gradcheck() -> None:
    p, y, weight = randn(2, 3, 4).requires_grad_(), randn(2, 3, 4, seed=1), rand(2, 3, 4)
    valid = randn(2, 3, 4, seed=2) > -0.5
    y[~valid] = math.nan
    call = lambda p: scale_shift_invariant(p, y, valid, weight=weight)  # noqa: E731
    assert torch.autograd.gradcheck(call, p)


def test_angmf_is_the_weighted_mean_of_its_pixels() -> None:
    raw, target = randn(1, 4, 1, 3), F.normalize(randn(1, 3, 1, 3, seed=1), dim=1)
    valid, weight = torch.tensor([[[True, True, False]]]), torch.tensor([[[1.0, 0.25, 1.0]]])
    one, two = (
        nll_angmf(raw[..., i : i + 1], target[..., i : i + 1], valid[..., i : i + 1]).item()
        for i in (0, 1)
    )
    loss = nll_angmf(raw, target, valid, weight=weight)
    assert loss.item() == pytest.approx((one + 0.25 * two) / 1.25)


def every_loss(weight: Tensor | None, leaf: Tensor) -> list[Tensor]:
    """The four losses on 1,500 pixels of which some count nothing; `leaf` (2, 4, 5, 6) float32."""
    valid = randn(2, 25, 30, seed=2) > -0.8
    target = randn(2, 4, 25, 30, seed=3).float()
    labels = (4 * rand(2, 25, 30, seed=4)).to(torch.uint8).masked_fill(~valid, 255)
    full = F.interpolate(leaf, size=(25, 30), mode="nearest")
    return [
        cell_cross_entropy(leaf, labels, weight=weight),
        cell_l1(leaf, target, valid, weight=weight),
        scale_shift_invariant(full[:, 0], target[:, 0], valid, weight=weight),
        nll_angmf(full, F.normalize(target[:, :3], dim=1), valid, weight=weight),
    ]


def test_a_weight_of_ones_changes_nothing() -> None:
    leaf = randn(2, 4, 5, 6).float().requires_grad_()
    for ones, none in zip(
        every_loss(torch.ones(2, 25, 30), leaf), every_loss(None, leaf), strict=True
    ):
        assert ones.item() == pytest.approx(none.item(), abs=1e-6)
        assert (gradient(ones, leaf) - gradient(none, leaf)).abs().max() <= 1e-6


def test_only_ratios_of_weights_matter() -> None:
    leaf, weight = randn(2, 4, 5, 6).float().requires_grad_(), rand(2, 25, 30, seed=9).float()
    for full, small in zip(every_loss(weight, leaf), every_loss(weight / 1024, leaf), strict=True):
        assert small.item() == pytest.approx(full.item(), rel=1e-5)


def test_no_weight_at_all_keeps_the_prediction_in_the_graph() -> None:
    leaf = randn(2, 4, 5, 6).float().requires_grad_()
    for loss in every_loss(torch.zeros(2, 25, 30), leaf):
        assert loss.item() == 0 and gradient(loss, leaf).abs().max() == 0


def test_samples_without_a_label_weigh_nothing() -> None:
    logits, weight = randn(2, 4, 2, 2), rand(2, 8, 8)
    labels, present = (4 * rand(2, 8, 8, seed=1)).to(torch.uint8), torch.tensor([False, True])
    loss = cell_cross_entropy(logits, labels, present=present, weight=weight)
    alone = cell_cross_entropy(logits[1:], labels[1:], weight=weight[1:])
    assert loss.item() == pytest.approx(alone.item())


def test_targets_know_what_their_mean_divides_by() -> None:
    valid = torch.tensor([[[True, False]], [[True, True]], [[True, True]]])
    targets = DenseTargets(
        target=torch.zeros(3, 1, 2), valid=valid, present=torch.tensor([True, True, False])
    )
    assert targets.counted().item() == 3
    weight = torch.tensor([[[0.5, 1.0]], [[0.25, 1.0]], [[1.0, 1.0]]])
    weighted = DenseTargets(
        target=targets.target, valid=valid, present=targets.present, weight=weight
    )
    assert weighted.counted().item() == pytest.approx(1.75)
    moved = weighted.to("meta")
    assert moved.weight is not None and moved.weight.device.type == "meta"
