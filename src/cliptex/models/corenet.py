"""CLIP of the CLIPTeX authors' library (CoreNet): towers, names and captions as in its files.

The image tower is a ViT with a convolutional stem and batch norm, whose class token has no
position; the text tower is theirs, too. Both differ from open_clip's in parameters and arithmetic,
so that weights of one do not fit the other. Modules are named so that a state dict has the keys,
shapes and order of the released checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.models.config import CORENET, ClipConfig, PositionRule
from cliptex.models.encoder import Features, ImageEncoder
from cliptex.models.tokenizer import BpeTokenizer
from cliptex.models.towers import resize_positions
from cliptex.shards.captions import clean_caption

EPS = 1e-6


class ConvBlock(nn.Module):
    """A convolution (`block.conv`), then optionally a norm (`block.norm`) and an activation."""

    def __init__(
        self, conv: nn.Module, norm: nn.Module | None = None, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.block = nn.Sequential()
        self.block.add_module("conv", conv)
        if norm is not None:
            self.block.add_module("norm", norm)
        if activation is not None:
            self.block.add_module("act", activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w')."""
        return self.block(x)


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


STRIDE = 16
TEXT_EPS = 1e-5
HEAD_WIDTH = 64  # of every attention head in the released models
_POSITIONS = "image_encoder.pos_embed.pos_embed.pos_embed"
_TEXT_POSITIONS = "text_encoder.positional_embedding.pos_embed.pos_embed"


class RangeParameters(nn.Module):
    """The six scalars of the authors' learnt augmentation: carried in and out, not applied."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("brightness", "contrast", "noise"):
            bounds = nn.Module()
            bounds.register_buffer("_low", torch.zeros(()))
            bounds.register_buffer("_high", torch.zeros(()))
            self.add_module(name, bounds)


class Projection(nn.Module):
    """x @ proj, without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Parameter(inputs**-0.5 * torch.randn(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, D)."""
        return x @ self.proj


class CoreNetImage(nn.Module):
    """Image tower: positions go to the patches only, the class token is put before them bare."""

    def __init__(self, form: VitForm, embed_dim: int, rule: PositionRule = "flat1d") -> None:
        super().__init__()
        self.rule: PositionRule = rule
        self.cls_token = nn.Parameter(torch.zeros(1, 1, form.width))
        nn.init.trunc_normal_(self.cls_token, std=form.width**-0.5)
        self.neural_augmentor = RangeParameters()
        self.patch_emb = patch_stem(form.width)
        self.post_transformer_norm = nn.LayerNorm(form.width, eps=form.eps)
        self.transformer = nn.Sequential(*(Block(form, "out_proj") for _ in range(form.layers)))
        self.classifier = Projection(form.width, embed_dim)
        self.pos_embed = PositionTable(form.positions, form.width)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] -> class token (B, C) and map (B, C, H / 16, W / 16), normed."""
        x = self.patch_emb(images)  # (B, C, h, w)
        size = (x.shape[-2], x.shape[-1])
        x = x.flatten(2).transpose(1, 2)  # (B, h * w, C)
        x = x + self._positions(size).to(x.dtype)
        x = torch.cat([self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        x = self.post_transformer_norm(self.transformer(x))  # (B, 1 + h * w, C)
        return x[:, 0], x[:, 1:].transpose(1, 2).unflatten(2, size)

    def _positions(self, size: tuple[int, int]) -> Tensor:
        """(1, h * w, C): as the weights were trained, or as every other ViT here."""
        if self.rule == "flat1d":
            return self.pos_embed(size[0] * size[1])
        table = self.pos_embed.pos_embed.get_parameter("pos_embed")[0, 0]  # (n * n, C)
        return resize_positions(F.pad(table, (0, 0, 1, 0)), size)[None, 1:]


class CoreNetText(nn.Module):
    """Text tower: causal, read at the largest token id, which ends a text."""

    def __init__(self, form: VitForm, vocab_size: int, embed_dim: int) -> None:
        super().__init__()
        self.projection_layer = nn.Parameter(form.width**-0.5 * torch.randn(form.width, embed_dim))
        self.embedding_layer = nn.Embedding(vocab_size, form.width)
        self.positional_embedding = PositionTable(form.positions, form.width)
        self.transformer = nn.Sequential(*(Block(form, "out_proj") for _ in range(form.layers)))
        self.final_layer_norm = nn.LayerNorm(form.width, eps=form.eps)
        self.context_length = form.positions
        _initialise(self.embedding_layer, self.transformer, form)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) -> (B, D).

        L below the context length gives what zero-padding gives, since no token sees those behind
        it. (The authors' code stretches the positions instead, and must be given padded rows.)
        """
        length = tokens.shape[1]
        if length > self.context_length:
            raise ValueError(f"{length} tokens in a text, the tower reads {self.context_length}")
        positions = self.positional_embedding(self.context_length)[:, :length]  # (1, L, C)
        x = self.embedding_layer(tokens) + positions  # (B, L, C)
        x = self.final_layer_norm(self.transformer(x))
        ends = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]  # (B, C)
        return ends @ self.projection_layer


def _initialise(embedding: nn.Embedding, blocks: nn.Sequential, form: VitForm) -> None:
    """Radford et al. 2021's first weights of a text transformer."""
    into, out = form.width**-0.5, form.width**-0.5 * (2 * form.layers) ** -0.5
    nn.init.normal_(embedding.weight, std=0.02)
    for block in blocks:
        parts = {
            "pre_norm_mha.1.qkv_proj": into,
            "pre_norm_mha.1.out_proj": out,
            "pre_norm_ffn.1": (2 * form.width) ** -0.5,
            "pre_norm_ffn.4": out,
        }
        for name, std in parts.items():
            nn.init.normal_(block.get_parameter(f"{name}.weight"), std=std)


class CoreNetClip(nn.Module):
    """Both towers and the temperature, named as in the released files."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        vision, text = dict(config.vision_cfg), dict(config.text_cfg)
        vocab_size = text.pop("vocab_size", 49408)
        self.logit_scale = nn.Parameter(torch.tensor(config.init_logit_scale))
        self.image_encoder = CoreNetImage(
            _form("vision_cfg", vision), config.embed_dim, config.pool_pos or "flat1d"
        )
        form = _form("text_cfg", {**text, "eps": TEXT_EPS, "causal": True})
        self.text_encoder = CoreNetText(form, vocab_size, config.embed_dim)


def _form(name: str, values: Mapping[str, Any]) -> VitForm:
    known = {field.name for field in fields(VitForm)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ValueError(f"{name}: unknown key {unknown[0]!r} for a corenet tower: use {known}")
    return VitForm(**values)


class CoreNetEncoder(ImageEncoder):
    """The image tower as an encoder; by default positions are stretched along the sequence.

    Its batch norm makes features depend on the batch while training.
    """

    stride = STRIDE

    def __init__(self, tower: CoreNetImage, config: ClipConfig) -> None:
        super().__init__(config.mean, config.std)
        self.tower = tower
        width, self.embed_dim = tower.classifier.proj.shape
        self.channels = self.pooled_channels = width
        table = tower.pos_embed.pos_embed.get_parameter("pos_embed")
        self.image_size = STRIDE * round(table.shape[2] ** 0.5)

    def features(self, images: Tensor) -> Features:
        """(B, 3, H, W) -> class token, its projection, and the map of patch tokens."""
        pooled, dense = self.tower(images)
        return Features(self.tower.classifier(pooled), pooled, {self.stride: dense})


class CoreNetTokenizer(BpeTokenizer):
    """CLIP's tokens of captions cleaned as the authors clean them; zeros behind the end."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (B, context_length) int64."""
        return super().__call__([clean_caption(text) for text in texts])


# Images enter as they are, in [0, 1].
_COLOURS: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_KEYS = ("width", "layers", "heads", "hidden", "positions")

CORENET_MODELS: Mapping[str, ClipConfig] = {
    name: ClipConfig(
        family="corenet",
        embed_dim=512,
        vision_cfg=dict(zip(_KEYS, vision, strict=True)),
        text_cfg={**dict(zip(_KEYS, text, strict=True)), "vocab_size": 49408},
        **_COLOURS,
    )
    for name, vision, text in (
        ("ViT-B-16", (768, 12, 12, 3072, 196), (512, 12, 8, 2048, 77)),
        ("ViT-H-16", (1280, 32, 20, 5120, 196), (768, 12, 12, 3072, 77)),
    )
}


def corenet_config(state: Mapping[str, Tensor], source: str) -> ClipConfig:
    """The description of the model in a released file, read off its shapes.

    Raises ValueError, naming `source` and the key, where it is no CLIP of that library.
    """
    try:
        embed_dim = state["image_encoder.classifier.proj"].shape[1]
        vision = _sizes(state, "image_encoder", _POSITIONS)
        text = _sizes(state, "text_encoder", _TEXT_POSITIONS)
        vocab_size = state["text_encoder.embedding_layer.weight"].shape[0]
    except KeyError as error:
        raise ValueError(
            f"{source}: lacks key {error}: no CLIP checkpoint of the corenet library; if another "
            f"library saved it, drop the prefix {CORENET!r} (docs/models.md)"
        ) from error
    return ClipConfig(
        family="corenet",
        embed_dim=embed_dim,
        vision_cfg=vision,
        text_cfg={**text, "vocab_size": vocab_size},
        **_COLOURS,
    )


def _sizes(state: Mapping[str, Tensor], tower: str, positions: str) -> dict[str, int]:
    _, _, count, width = state[positions].shape
    prefix = f"{tower}.transformer."
    layers = {key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)}
    hidden = state[f"{prefix}0.pre_norm_ffn.1.weight"].shape[0]
    sizes = (width, len(layers), width // HEAD_WIDTH, hidden, count)
    return dict(zip(_KEYS, sizes, strict=True))
