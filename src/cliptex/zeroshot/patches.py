"""Embeddings of single cells of the image tower's map, in the space shared with text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.models.corenet import CoreNetEncoder
from cliptex.models.encoder import ImageEncoder
from cliptex.models.timm_encoder import TimmEncoder
from cliptex.models.towers import ResNetEncoder, VitEncoder

WAYS = {
    VitEncoder: "patch tokens through the class token's norm and projection",
    CoreNetEncoder: "patch tokens through the class token's norm and projection",
    ResNetEncoder: "value and output projection of the attention pooling (MaskCLIP)",
    TimmEncoder: "each cell pooled and projected as if it were the whole map",
}


def patch_embeddings(encoder: ImageEncoder, images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, D, H / stride, W / stride) of unit length, float32.

    Nothing is trained. Attention pooling over a single cell is its value projection, which is how
    Zhou et al. 2022 ("Extract free dense labels from CLIP") read ResNets. Raises ValueError for a
    tower that pools by attention in open_clip's transformer or timm adapter, whose queries would
    mix cells.
    """
    with torch.no_grad():
        if isinstance(encoder, VitEncoder):
            cells = _vit(encoder, images)
        elif isinstance(encoder, CoreNetEncoder):
            cells = encoder.tower.classifier(_last(_dense(encoder, images)))
        elif isinstance(encoder, ResNetEncoder):
            pool = encoder.tower.attnpool
            cells = pool.c_proj(pool.v_proj(_last(_dense(encoder, images))))
        elif isinstance(encoder, TimmEncoder):
            cells = _timm(encoder, images)
        else:
            raise ValueError(_no_way(encoder))
        return F.normalize(cells.float(), dim=-1).permute(0, 3, 1, 2)


def way_of(encoder: ImageEncoder) -> str:
    """How `patch_embeddings` reads this tower, for protocols."""
    return next((way for kind, way in WAYS.items() if isinstance(encoder, kind)), "")


def _dense(encoder: ImageEncoder, images: Tensor) -> Tensor:
    return encoder(images).maps[encoder.stride]


def _last(cells: Tensor) -> Tensor:
    return cells.permute(0, 2, 3, 1)  # (B, C, h, w) -> (B, h, w, C)


def _vit(encoder: VitEncoder, images: Tensor) -> Tensor:
    tower = encoder.tower
    if tower.attn_pool is not None:
        raise ValueError(_no_way(encoder))
    assert tower.proj is not None
    return _last(_dense(encoder, images)) @ tower.proj


def _timm(encoder: TimmEncoder, images: Tensor) -> Tensor:
    """The trunk's own pooling and the adapter's projection, on maps of one cell each."""
    dense = _last(_dense(encoder, images))  # (B, h, w, C)
    flat = dense.reshape(-1, dense.shape[-1])  # (B * h * w, C)
    trunk: Any = encoder.tower.trunk
    if getattr(trunk, "num_prefix_tokens", None) is not None:  # a transformer: (N, L, C)
        # The cell stands for the class token, too, whichever of the two the trunk pools.
        cells = flat[:, None].expand(-1, encoder.prefix + 1, -1)
    elif str(getattr(trunk, "output_fmt", "NCHW")).endswith("NHWC"):
        cells = flat[:, None, None]
    else:
        cells = flat[:, :, None, None]
    try:
        pooled = trunk.forward_head(cells)
    except RuntimeError as error:  # a head for maps of the trained size alone, as Hiera's
        raise ValueError(_no_way(encoder)) from error
    if pooled.ndim != 2:
        raise ValueError(_no_way(encoder))
    return encoder.tower.head(pooled).unflatten(0, dense.shape[:3])


def _no_way(encoder: ImageEncoder) -> str:
    return (
        f"{type(encoder).__name__}: this image tower pools its map in a way that gives single "
        "cells no embedding beside text: dense zero-shot takes ViTs that pool by class token or "
        "mean, attention-pooled ResNets and timm trunks that pool by themselves"
    )
