"""SigLIP's loss (Zhai et al. 2023, section 3.2)."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from cliptex.losses import sigmoid_contrastive


def units(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 6, generator=generator, dtype=torch.float64), dim=1)


def test_golden() -> None:
    # Two orthogonal pairs: logits 3 - 1 on the diagonal, 0 - 1 beside it.
    image = torch.eye(2)
    pair, other = math.log1p(math.exp(-2)), math.log1p(math.exp(-1))
    loss = sigmoid_contrastive(image, image, 3.0, -1.0)
    assert loss.item() == pytest.approx((2 * pair + 2 * other) / 2)


def test_shares_of_rows_add_up_to_the_whole() -> None:
    image, text = units(5, 0), units(5, 1)
    whole = sigmoid_contrastive(image, text, 10.0, -2.0)
    shares = [
        sigmoid_contrastive(image[a:b], text, 10.0, -2.0, a) * (b - a) for a, b in ((0, 2), (2, 5))
    ]
    assert (sum(shares) / 5).item() == pytest.approx(whole.item())


def test_the_first_bias_makes_a_start_without_pairs_cheap() -> None:
    # B - 1 of B pairs do not belong together; at bias 0 each would cost log 2 (section 3.2).
    image, text = units(32, 0), units(32, 1)
    assert sigmoid_contrastive(image, text, 10.0, 0.0) > 20
    assert sigmoid_contrastive(image, text, 10.0, -10.0) < 13


def test_gradients_are_those_of_the_formula() -> None:
    scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    image, text = units(2, 0).requires_grad_(), units(3, 1).requires_grad_()
    # the loss computes in float32: compare with the formula in float64
    loss = sigmoid_contrastive(image, text, scale, bias, 1)
    logits = scale * image @ text.T + bias
    signs = torch.tensor([[-1.0, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    expected = -F.logsigmoid(signs * logits).sum() / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    leaves = (image, text, scale, bias)
    found, wanted = torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
