"""Self-attention as plain batched products, for training small transformers on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


class PlainAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` that runs as bmm, softmax, bmm under bfloat16 autocast on a CPU.

    torch's fused CPU kernel keeps scores out of memory, but its backward does not reach the
    matrix units: one thread of an AMX machine took 60 ms forward and backward for 48 images of
    65 tokens (3 heads of 64), and 11 ms as plain products; 122 and 63 ms for 257 tokens. In all
    other settings the parent class runs, unchanged to the bit.
    """

    @classmethod
    def like(cls, other: nn.MultiheadAttention) -> PlainAttention:
        """A module that shares the parameters of `other`."""
        new = cls(other.embed_dim, other.num_heads, batch_first=other.batch_first)
        new.in_proj_weight, new.in_proj_bias = other.in_proj_weight, other.in_proj_bias
        new.out_proj = other.out_proj
        return new.train(other.training)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        """As the parent; (B, L, C) -> ((B, L, C), None) where the plain products run."""
        plain = (
            query is key
            and key is value
            and self.batch_first
            and query.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and not options.get("need_weights", True)
        )
        if not plain:
            return super().forward(query, key, value, **options)
        return self._products(query, options.get("attn_mask")), None

    def _products(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, _ = x.shape
        heads, width = self.num_heads, self.head_dim
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, L, 3C)
        packed = packed.view(batch, length, 3, heads, width).permute(2, 0, 3, 1, 4)
        q, k, v = packed.reshape(3, batch * heads, length, width).unbind(0)
        scores = torch.bmm(q * width**-0.5, k.transpose(1, 2))  # (B * heads, L, L)
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        mixed = torch.bmm(scores.softmax(-1), v)  # (B * heads, L, width)
        mixed = mixed.view(batch, heads, length, width).transpose(1, 2)
        return self.out_proj(mixed.reshape(batch, length, heads * width))


def use_plain_attention(module: nn.Module) -> None:
    """Give every standard block of open_clip's transformers in `module` a PlainAttention."""
    for block in module.modules():
        if isinstance(block, ResidualAttentionBlock) and not hasattr(block, "ln_1_kv"):
            block.attn = PlainAttention.like(block.attn)
