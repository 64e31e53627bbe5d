"""Losses of depth and normals where they are delicate: kinks, extreme kappas, flat predictions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cliptex.losses import nll_angmf, scale_shift_invariant

ONE = torch.ones(1, 1, 1).bool()
UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
SMALL, LARGE = -30.0, 2000.0  # raw concentrations: kappa 0.01 and 2001.01


def raw_normal(tilt: float, k: float, length: float = 2.0) -> Tensor:
    """Raw output (1, 4, 1, 1) at an angle of `tilt` to `UP`; exact at 0 and pi."""
    z = {0.0: 1.0, math.pi: -1.0}.get(tilt, math.cos(tilt))
    x = 0.0 if tilt in (0.0, math.pi) else math.sin(tilt)
    vector = torch.tensor([length * x, 0.0, length * z, k], dtype=torch.float64)
    return vector.view(1, 4, 1, 1).requires_grad_()


def kappa_of(k: float) -> float:
    return (k if k > 0 else math.expm1(k)) + 1.01


def nll(kappa: float, angle: float) -> float:
    """Bae et al. 2021, equation 7, in plain numbers, without log(2 pi)."""
    return -math.log(kappa**2 + 1) + kappa * angle + math.log1p(math.exp(-kappa * math.pi))


@pytest.mark.parametrize("k", [SMALL, -1.0, 0.0, 3.0, LARGE])
@pytest.mark.parametrize("tilt", [0.0, 1e-6, 0.5, math.pi / 2, math.pi - 1e-6, math.pi])
def test_angmf__value_at_all_angles_and_concentrations(k: float, tilt: float) -> None:
    loss = nll_angmf(raw_normal(tilt, k), UP, ONE)
    assert loss.item() == pytest.approx(nll(kappa_of(k), tilt), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("k", [SMALL, LARGE])
@pytest.mark.parametrize("tilt", [1e-3, 1.0, math.pi - 1e-3])
def test_angmf__gradcheck_at_extreme_concentrations(k: float, tilt: float) -> None:
    raw = raw_normal(tilt, k)
    assert torch.autograd.gradcheck(lambda r: nll_angmf(r, UP, ONE), raw, eps=1e-7, rtol=1e-4)


@pytest.mark.parametrize("k", [SMALL, 0.5, LARGE])
@pytest.mark.parametrize("tilt", [0.0, math.pi])
def test_angmf__gradient_at_the_kinks(k: float, tilt: float) -> None:
    raw = raw_normal(tilt, k)
    (gradient,) = torch.autograd.grad(nll_angmf(raw, UP, ONE), raw)
    vector, of_k = gradient.flatten()[:3], gradient.flatten()[3].item()
    assert vector.abs().max() == 0  # the middle of the kink's slopes
    kappa, slope = kappa_of(k), math.exp(min(k, 0.0))
    decay = math.exp(-kappa * math.pi)
    expected = slope * (-2 * kappa / (kappa**2 + 1) + tilt - math.pi * decay / (1 + decay))
    assert of_k == pytest.approx(expected, rel=1e-9, abs=1e-15)


def flat(spread: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """A prediction around 5 of the given spread, its target, and all pixels valid."""
    generator = torch.Generator().manual_seed(0)
    noise, target = torch.randn(2, 1, 4, 5, dtype=torch.float64, generator=generator)
    return (5 + spread * noise).to(dtype).requires_grad_(), target, torch.ones(1, 4, 5).bool()


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_ssi__gradcheck_of_nearly_constant_predictions(spread: float) -> None:
    p, y, valid = flat(spread)
    # The gradient grows as 1 / spread; differences are taken well within it.
    assert torch.autograd.gradcheck(
        lambda p: scale_shift_invariant(p, y, valid), p, eps=1e-5 * spread, rtol=1e-3, atol=1e-5
    )


def test_ssi__spread_does_not_change_the_value() -> None:
    values = [scale_shift_invariant(*flat(spread)).item() for spread in (1.0, 1e-4, 1e-7)]
    assert values[1:] == pytest.approx([values[0]] * 2, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1e-6, 1e-12, 1e-17, 0.0])
def test_ssi__gradient_is_finite_down_to_a_constant(dtype: torch.dtype, spread: float) -> None:
    p, y, valid = flat(spread, dtype)
    loss = scale_shift_invariant(p, y, valid)
    (gradient,) = torch.autograd.grad(loss, p)
    assert loss.isfinite() and gradient.isfinite().all()
    if spread < 1e-16:  # nothing to scale: s = t = 0
        assert gradient.abs().max() == 0
        assert loss.item() == pytest.approx(y.abs().mean().item(), rel=1e-6)
