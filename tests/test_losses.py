"""Losses: golden values by hand, and exact equality with their definitions."""

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
    angmf_split,
    cell_cross_entropy,
    cell_l1,
    class_histogram,
    contrastive,
    nearest_cells,
    nll_angmf,
    scale_shift_invariant,
)

sides = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))


def interpolated(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="nearest")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss, leaf)[0]


# --- contrastive ---------------------------------------------------------------------------------


def test_contrastive_golden() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # Logits are 2 on the diagonal and 0 beside it: both directions cost ln(1 + e^-2).
    assert contrastive(image, image, 2.0).item() == pytest.approx(math.log1p(math.exp(-2)))


def test_contrastive_is_symmetric_and_punishes_wrong_pairs() -> None:
    a, b = (F.normalize(randn(6, 4, seed=s), dim=1).float() for s in (1, 2))
    assert contrastive(a, b, 5.0).item() == pytest.approx(contrastive(b, a, 5.0).item())
    assert contrastive(a, a.roll(1, 0), 5.0) > contrastive(a, a, 5.0)


def test_contrastive__parts_compared_with_all_have_the_mean_of_the_whole() -> None:
    image, text = (F.normalize(torch.randn(6, 4), dim=1) for _ in range(2))
    parts = [
        contrastive(image[a:b], text[a:b], 5.0, (image, text), a) * (b - a) / 6
        for a, b in ((0, 1), (1, 4), (4, 6))
    ]
    torch.testing.assert_close(sum(parts), contrastive(image, text, 5.0))


# --- the cell that a pixel reads -----------------------------------------------------------------


def test_every_ratio_reads_the_cells_that_torch_reads() -> None:
    """Also where float64 gives other cells, as for 2 of 164 and 27 of 333 pixels."""
    for cells in (1, 2, 3, 7, 14, 25, 27, 33, 62):
        x = torch.arange(cells, dtype=torch.float32).view(1, 1, 1, cells).repeat(2, 5, 2, 1)
        for pixels in (*range(1, 200), 224, 333, 448, 500, 512, 900):
            expected = interpolated(x, (2, pixels))[0, 0, 0].long()
            assert torch.equal(nearest_cells(cells, pixels), expected), (cells, pixels)


def test_gradients_go_to_the_cells_that_float32_reads() -> None:
    """Two cells over 164 pixels: 83 and 81, though 82 each in exact numbers."""
    prediction = torch.zeros(1, 1, 2, 1, requires_grad=True)
    target, valid = torch.ones(1, 1, 164, 1), torch.ones(1, 164, 1, dtype=torch.bool)
    cell_l1(prediction, target, valid).backward()
    reference = torch.zeros(1, 1, 2, 1, requires_grad=True)
    (interpolated(reference, (164, 1)) - target).abs().mean().backward()
    assert prediction.grad is not None and reference.grad is not None
    torch.testing.assert_close(prediction.grad, reference.grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_cells_do_not_depend_on_memory_format_or_dtype(channels_last: bool) -> None:
    x = torch.arange(12.0).view(1, 1, 12, 1).repeat(1, 4, 1, 3)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for dtype in (torch.float32, torch.bfloat16):
        expected = interpolated(x.to(dtype), (53, 7))[0, 0, :, 0].long()
        assert torch.equal(nearest_cells(12, 53), expected)


# --- cell_cross_entropy --------------------------------------------------------------------------


def test_cross_entropy_golden() -> None:
    # One cell with p = (1/4, 3/4); of its six pixels 3 are class 0, 1 is class 1, 2 are ignored.
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    labels = torch.tensor([[[0, 255, 0], [1, 0, 255]]], dtype=torch.uint8)
    expected = (3 * math.log(4) + math.log(4 / 3)) / 4
    assert cell_cross_entropy(logits, labels).item() == pytest.approx(expected)


def test_histogram_golden() -> None:
    labels = torch.tensor([[[0, 1, 2, 255], [1, 1, 2, 2]]])
    counts = class_histogram(labels, (1, 3, 1, 2))
    assert counts[0, :, 0].tolist() == [[1, 0], [3, 0], [0, 3]]


@settings(max_examples=60, deadline=None)
@given(sides, st.integers(0, 2**31), st.sampled_from([torch.uint8, torch.int64, torch.int32]))
def test_cross_entropy_equals_its_definition(
    size: tuple[int, int, int, int], seed: int, dtype: torch.dtype
) -> None:
    h, w, big_h, big_w = size
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, h, w, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 5, (2, big_h, big_w), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    labels[0, 0, 0] = 3  # at least one counts
    full = interpolated(logits, (big_h, big_w))
    expected = F.cross_entropy(full, labels, ignore_index=255)
    ours = cell_cross_entropy(logits, labels.to(dtype))
    assert abs(ours.item() - expected.item()) <= 1e-12
    assert (gradient(ours, logits) - gradient(expected, logits)).abs().max() <= 1e-12


@pytest.mark.parametrize("ignore", [0, 3, -1, -100, 254, 65535])
def test_any_ignored_label(ignore: int) -> None:
    logits = randn(2, 4, 3, 3)
    labels = torch.arange(2 * 12 * 12).view(2, 12, 12) % 4
    labels[:, ::3] = ignore
    expected = F.cross_entropy(interpolated(logits, (12, 12)), labels, ignore_index=ignore)
    assert cell_cross_entropy(logits, labels, ignore=ignore).item() == pytest.approx(expected)


def test_many_classes_in_uint16() -> None:
    logits, labels = randn(1, 300, 2, 2), torch.arange(256).view(1, 16, 16) + 40
    expected = F.cross_entropy(interpolated(logits, (16, 16)), labels)
    ours = cell_cross_entropy(logits, labels.to(torch.uint16), ignore=65535)
    assert ours.item() == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [5, 254, -1])
def test_unknown_class_is_named(wrong: int) -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, 2, 2] = wrong
    with pytest.raises(ValueError, match=f"hold {wrong}, .* 5 classes"):
        cell_cross_entropy(torch.zeros(1, 5, 2, 2), labels)
    if wrong > 0:
        with pytest.raises(ValueError, match=f"hold {wrong}, "):
            cell_cross_entropy(torch.zeros(1, 5, 2, 2), labels.to(torch.uint8))


def test_missing_samples_cost_nothing() -> None:
    logits = randn(3, 4, 2, 2).requires_grad_()
    labels = torch.arange(3 * 64).view(3, 8, 8) % 4
    present = torch.tensor([True, False, True])
    ours = cell_cross_entropy(logits, labels.to(torch.uint8), present=present)
    alone = cell_cross_entropy(logits[present], labels[present])
    assert ours.item() == pytest.approx(alone.item(), abs=1e-12)
    assert gradient(ours, logits)[1].abs().max() == 0


def test_no_label_at_all_keeps_the_head_in_the_graph() -> None:
    logits = randn(2, 4, 2, 2).requires_grad_()
    ours = cell_cross_entropy(logits, torch.full((2, 8, 8), 255))
    assert ours.item() == 0 and gradient(ours, logits).abs().max() == 0


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits, labels = randn(1, 4, 2, 2).bfloat16(), torch.arange(64).view(1, 8, 8) % 4
    assert cell_cross_entropy(logits, labels).dtype == torch.float32


# --- cell_l1 -------------------------------------------------------------------------------------


def test_l1_golden() -> None:
    prediction = torch.tensor([[[[1.0, 2.0]]]])
    target = torch.tensor([[[[0.0, 1.5, math.nan, 4.0]]]])
    valid = torch.tensor([[[True, True, False, True]]])
    assert cell_l1(prediction, target, valid).item() == pytest.approx((1 + 0.5 + 2) / 3)


@settings(max_examples=60, deadline=None)
@given(sides, st.integers(0, 2**31))
def test_l1_equals_its_definition(size: tuple[int, int, int, int], seed: int) -> None:
    h, w, big_h, big_w = size
    prediction = randn(2, 3, h, w, seed=seed).requires_grad_()
    target = randn(2, 3, big_h, big_w, seed=seed + 1)
    valid = randn(2, big_h, big_w, seed=seed + 2) > -0.5
    valid[0, 0, 0] = True
    error = (interpolated(prediction, (big_h, big_w)) - target).abs()
    expected = error.permute(0, 2, 3, 1)[valid].mean()
    ours = cell_l1(prediction, target.masked_fill(~valid[:, None], math.nan), valid)
    assert abs(ours.item() - expected.item()) <= 1e-12
    assert (gradient(ours, prediction) - gradient(expected, prediction)).abs().max() <= 1e-12


@pytest.mark.parametrize("pixels", [6, 7])
def test_l1_gradcheck(pixels: int) -> None:
    prediction = randn(1, 2, 3, 3).requires_grad_()
    target, valid = randn(1, 2, pixels, pixels, seed=5), torch.ones(1, pixels, pixels).bool()
    valid[0, 1, 1] = False
    assert torch.autograd.gradcheck(lambda p: cell_l1(p, target, valid), prediction)


def test_l1_without_valid_pixels_stays_in_the_graph() -> None:
    prediction = randn(2, 1, 2, 2).requires_grad_()
    target, valid = torch.full((2, 1, 4, 4), math.nan), torch.ones(2, 4, 4).bool()
    ours = cell_l1(prediction, target, valid, present=torch.tensor([False, False]))
    assert ours.item() == 0 and gradient(ours, prediction).abs().max() == 0


# --- scale_shift_invariant -----------------------------------------------------------------------


def test_scale_and_shift_golden() -> None:
    # Least squares of y = (0, 0, 3) on p = (0, 1, 2): s = 3/2, t = -1/2, residuals 1/2, 1, 1/2.
    p, y = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[0.0, 0.0, 3.0]]])
    loss = scale_shift_invariant(p, y, torch.ones(1, 1, 3).bool())
    assert loss.item() == pytest.approx(2 / 3)


@given(st.floats(0.01, 50), st.floats(-20, 20))
@settings(max_examples=30, deadline=None)
def test_scale_and_shift_do_not_matter(s: float, t: float) -> None:
    p, y = randn(2, 5, 6), randn(2, 5, 6, seed=1)
    valid = randn(2, 5, 6, seed=2) > -1
    expected = scale_shift_invariant(p, y, valid)
    assert scale_shift_invariant(s * p + t, y, valid).item() == pytest.approx(expected.item())


def test_pixels_of_all_images_are_pooled_and_solved_per_image() -> None:
    p, y = randn(2, 4, 4), randn(2, 4, 4, seed=1)
    valid = torch.ones(2, 4, 4).bool()
    valid[1, 2:] = False
    one, two = (scale_shift_invariant(p[i : i + 1], y[i : i + 1], valid[i : i + 1]) for i in (0, 1))
    both = scale_shift_invariant(p, y, valid)
    assert both.item() == pytest.approx((16 * one.item() + 8 * two.item()) / 24)


def test_scale_and_shift_gradcheck_and_invalid_pixels() -> None:
    p = randn(2, 3, 4).requires_grad_()
    y, valid = randn(2, 3, 4, seed=1), randn(2, 3, 4, seed=2) > -0.5
    y[~valid] = math.nan
    assert torch.autograd.gradcheck(lambda p: scale_shift_invariant(p, y, valid), p)


@pytest.mark.parametrize("constant", [0.0, 1.0, 1234.567])
def test_constant_prediction_has_a_finite_gradient(constant: float) -> None:
    p = torch.full((1, 64, 64), constant, requires_grad=True)
    y = randn(1, 64, 64).float()
    loss = scale_shift_invariant(p, y, torch.ones(1, 64, 64).bool())
    assert loss.item() == pytest.approx(y.abs().mean().item())  # s = t = 0
    assert gradient(loss, p).isfinite().all()


def test_float32_keeps_digits_far_from_zero() -> None:
    p, y = randn(1, 100, 100) + 300, randn(1, 100, 100, seed=1)
    valid = torch.ones(1, 100, 100).bool()
    exact = scale_shift_invariant(p, y, valid).item()
    assert scale_shift_invariant(p.float(), y, valid).item() == pytest.approx(exact, rel=1e-4)


def test_scale_and_shift_without_valid_pixels() -> None:
    p = randn(1, 3, 3).requires_grad_()
    loss = scale_shift_invariant(p, torch.full((1, 3, 3), math.nan), torch.zeros(1, 3, 3).bool())
    assert loss.item() == 0 and gradient(loss, p).abs().max() == 0


# --- nll_angmf -----------------------------------------------------------------------------------


def raw_normal(vector: tuple[float, float, float], k: float) -> Tensor:
    return torch.tensor([*vector, k], dtype=torch.float64).view(1, 4, 1, 1)


UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
ONE = torch.ones(1, 1, 1).bool()


def test_angmf_golden() -> None:
    # A right angle with kappa = ELU(0) + 1.01 = 1.01.
    kappa = 1.01
    expected = -math.log(kappa**2 + 1) + kappa * math.pi / 2
    expected += math.log(1 + math.exp(-kappa * math.pi))
    loss = nll_angmf(raw_normal((3.0, 0.0, 0.0), 0.0), UP, ONE)
    assert loss.item() == pytest.approx(expected)


def test_angmf_split() -> None:
    normals, kappa = angmf_split(raw_normal((0.0, 3.0, 4.0), 2.0))
    assert normals.flatten().tolist() == pytest.approx([0, 0.6, 0.8])
    assert kappa.item() == pytest.approx(3.01)
    assert angmf_split(raw_normal((1.0, 0.0, 0.0), -80.0))[1].item() == pytest.approx(0.01)


@pytest.mark.parametrize("k", [-6.0, 0.5, 40.0])
@pytest.mark.parametrize("tilt", [1e-3, 0.7, math.pi - 1e-3])
def test_angmf_gradcheck(k: float, tilt: float) -> None:
    raw = raw_normal((2 * math.sin(tilt), 0.0, 2 * math.cos(tilt)), k).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: nll_angmf(r, UP, ONE), raw, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("z", [1.0, -1.0, 0.0])
def test_angmf_at_the_kinks_is_finite(z: float) -> None:
    raw = raw_normal((0.0, 0.0, z), 3.0).float().requires_grad_()
    loss = nll_angmf(raw, UP, ONE)
    assert loss.isfinite() and gradient(loss, raw).isfinite().all()


def test_angmf_near_zero_keeps_its_angle_in_float32() -> None:
    tilt = 1e-4  # acos of a float32 cosine could not see it
    raw = raw_normal((math.sin(tilt), 0.0, math.cos(tilt)), 0.0).float()
    flat = nll_angmf(raw_normal((0.0, 0.0, 1.0), 0.0).float(), UP, ONE)
    # Per unit of kappa = 1.01 the loss grows by the angle itself.
    assert (nll_angmf(raw, UP, ONE) - flat).item() == pytest.approx(1.01e-4, rel=1e-2)


def test_angmf_leaves_out_invalid_pixels() -> None:
    raw = randn(1, 4, 2, 2).requires_grad_()
    target = F.normalize(randn(1, 3, 2, 2, seed=1), dim=1)
    valid = torch.tensor([[[True, False], [True, True]]])
    target[0, :, 0, 1] = math.nan
    loss = nll_angmf(raw, target, valid)
    assert gradient(loss, raw)[0, :, 0, 1].abs().max() == 0
    assert nll_angmf(raw, target, torch.zeros(1, 2, 2).bool()).item() == 0


def test_targets_move_together() -> None:
    targets = DenseTargets(
        target=torch.zeros(1, 2, 2), valid=torch.ones(1, 2, 2).bool(), present=torch.ones(1).bool()
    )
    moved = targets.to("meta")
    assert {moved.target.device, moved.valid.device, moved.present.device} == {torch.device("meta")}
