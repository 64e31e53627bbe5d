"""Plain products give what the fused attention gives, and run only where they are faster."""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

from cliptex.models.towers import PlainAttention, use_plain_attention


@pytest.mark.parametrize("masked", [False, True])
def test_products_equal_the_parent(masked: bool) -> None:
    torch.manual_seed(0)
    parent = nn.MultiheadAttention(12, 3, batch_first=True).double()
    ours = PlainAttention.like(parent)
    mask = torch.full((5, 5), -torch.inf).triu(1).double() if masked else None
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    expected = parent(x, x, x, need_weights=False, attn_mask=mask)[0]
    out = ours._products(x, mask)
    assert (out - expected).abs().max() < 1e-12
    one, two = (torch.autograd.grad(y.square().sum(), x)[0] for y in (out, expected))
    assert (one - two).abs().max() < 1e-12
    assert dict(ours.named_parameters()).keys() == dict(parent.named_parameters()).keys()


def test_plain_products_run_under_bf16_autocast_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    block = ResidualAttentionBlock(8, 2)
    use_plain_attention(block)
    calls = []
    original = PlainAttention._products
    monkeypatch.setattr(
        PlainAttention, "_products", lambda self, x, m: calls.append(1) or original(self, x, m)
    )
    x = torch.randn(1, 3, 8)
    block(x)
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        block(x)
    assert calls
