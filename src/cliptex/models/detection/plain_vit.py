"""The plain ViT of the CLIPTeX authors' library: convolutional stem, pre-norm blocks, no class
token. Parameter names are those of their public checkpoints; their CLIP is made of the same blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.models.simple_pyramid import EPS, ConvBlock, SimplePyramid

OutputName = Literal["out_proj", "out_proj_attn"]


@dataclass(frozen=True)
class VitForm:
    """Sizes of a transformer; the defaults are ViT-B/16's.

    positions: entries of the positional table; eps: of its norms; causal: a token sees only those
    before it.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    positions: int = 196
    eps: float = EPS
    causal: bool = False


class Attention(nn.Module):
    """Multi-head self-attention; `qkv_proj` holds queries, keys, values, heads contiguous.

    The output's projection is called `out_proj_attn` in detectors, `out_proj` in CLIP.
    """

    def __init__(self, width: int, heads: int, output: OutputName, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.output = output
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.add_module(output, nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        qkv = self.qkv_proj(x).unflatten(2, (3, self.heads, -1))  # (B, N, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, d) each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, N, C)
        return self.get_submodule(self.output)(mixed)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, form: VitForm, output: OutputName) -> None:
        super().__init__()
        self.pre_norm_mha = nn.Sequential(
            nn.LayerNorm(form.width, eps=form.eps),
            Attention(form.width, form.heads, output, form.causal),
        )
        self.pre_norm_ffn = nn.Sequential(
            nn.LayerNorm(form.width, eps=form.eps),
            nn.Linear(form.width, form.hidden),
            nn.GELU(),
            nn.Identity(),  # dropout in the authors' numbering
            nn.Linear(form.hidden, form.width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.pre_norm_mha(x)
        return x + self.pre_norm_ffn(x)


def patch_stem(width: int) -> nn.Sequential:
    """(B, 3, H, W) -> (B, width, H / 16, W / 16), by three strided convolutions."""
    narrow = max(32, width // 4)
    first = nn.Conv2d(3, narrow, 4, stride=4, padding=1, bias=False)
    second = nn.Conv2d(narrow, narrow, 2, stride=2, bias=False)
    return nn.Sequential(
        ConvBlock(first, nn.BatchNorm2d(narrow), nn.GELU()),
        ConvBlock(second, nn.BatchNorm2d(narrow), nn.GELU()),
        ConvBlock(nn.Conv2d(narrow, width, 2, stride=2)),
    )


class PositionTable(nn.Module):
    """Learnt positions, interpolated along the flattened sequence for other token counts.

    Interpolating along the sequence, not on the grid, is what the weights were trained with.
    """

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Module()
        self.pos_embed.pos_embed = nn.Parameter(torch.empty(1, 1, positions, width))
        nn.init.trunc_normal_(self.pos_embed.pos_embed, std=width**-0.5)

    def forward(self, tokens: int) -> Tensor:
        """Positions (1, tokens, C)."""
        table = self.pos_embed.get_parameter("pos_embed")
        if tokens != table.shape[2]:
            size = (tokens, table.shape[3])
            table = F.interpolate(table, size=size, mode="bilinear", align_corners=False)
        return table[0]


class PlainViT(nn.Module):
    """Images (B, 3, H, W), sides multiples of 32 -> {stride: map} at strides 4, 8, 16, 32."""

    def __init__(self, form: VitForm, output: OutputName = "out_proj_attn") -> None:
        super().__init__()
        self.patch_emb = patch_stem(form.width)
        self.post_transformer_norm = nn.LayerNorm(form.width, eps=form.eps)
        self.transformer = nn.Sequential(*(Block(form, output) for _ in range(form.layers)))
        self.pos_embed = PositionTable(form.positions, form.width)
        self.simple_fpn = SimplePyramid(form.width)
        self.channels = self.simple_fpn.channels

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """See the class; widths are `channels`."""
        return self.simple_fpn(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """The normed map at stride 16: (B, 3, H, W) -> (B, C, H / 16, W / 16)."""
        x = self.patch_emb(images)  # (B, C, h, w)
        size = (x.shape[-2], x.shape[-1])
        tokens = x.flatten(2).transpose(1, 2)  # (B, h * w, C)
        tokens = self.transformer(tokens + self.pos_embed(tokens.shape[1]))
        return self.post_transformer_norm(tokens).transpose(1, 2).unflatten(2, size)
