"""Semantic segmentation from text alone: every cell of the map is compared with class prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.console import track
from cliptex.data.transforms import view_image
from cliptex.datasets.protocol import DenseDataset
from cliptex.labels.kinds import ClassMap
from cliptex.metrics import ImageConfusion
from cliptex.models.clip import Clip
from cliptex.models.corenet import CoreNetEncoder
from cliptex.models.device import computed_in
from cliptex.models.encoder import ImageEncoder
from cliptex.models.timm_encoder import TimmEncoder
from cliptex.models.towers import ResNetEncoder, VitEncoder
from cliptex.zeroshot.encode import (
    WHOLE,
    ZeroShotConfig,
    ZeroShotOutcome,
    device_of,
    require_finite,
    rows_of,
    seen_side,
)
from cliptex.zeroshot.prompts import (
    Names,
    classifier_weights,
    names_for,
    prompt_protocol,
    same_prompt_groups,
    same_prompt_protocol,
)

TASK = "zeroshot-segmentation"
BACKGROUND = "background"
WAYS = {
    VitEncoder: "patch tokens through the class token's norm and projection",
    CoreNetEncoder: "patch tokens through the class token's norm and projection",
    ResNetEncoder: "value and output projection of the attention pooling (MaskCLIP)",
    TimmEncoder: "each cell pooled and projected as if it were the whole map",
}


def run_zeroshot_segmentation(
    clip: Clip,
    test: DenseDataset,
    config: ZeroShotConfig,
    *,
    model: str,
    checkpoint: str = "",
    classes: Names | None = None,
    leak: bool = False,
) -> ZeroShotOutcome:
    """mIoU of `test`, and that of things where the first class is the background.

    Each cell gets the class whose averaged prompt embedding has the largest cosine, upsampled
    (bilinear, before the argmax) to the ground truth's size. A background is prompted by its
    name like any class. Per-image values are areas (N, C, 3), as of the
    probes. ValueError for a set without classes, for `crop="center"`, for towers that give single
    cells no embedding, and for embeddings that are not finite.
    """
    kind = ClassMap.expect(test.kind, f"{test.name} has no classes to segment: it")
    if config.crop != "squash":
        raise ValueError("crop=center would leave parts of the ground truth unseen: use squash")
    asked = names_for(kind.classes, classes, test.name)
    clip = clip.eval()
    label = f"{model}: segmentation by text on {test.name}"
    groups = same_prompt_groups(clip, asked, config.templates)
    alike = same_prompt_protocol(
        groups, asked, label=label, so="which of them a pixel gets means nothing"
    )
    weights = classifier_weights(clip, asked, config, label=label)
    confusion = _compare(clip, test, kind, weights, config, label)
    protocol = config.protocol(clip) | prompt_protocol(config.templates, asked) | alike
    protocol |= {"cells": way_of(clip.image)} | _scoring(kind, confusion)
    values, areas = {"miou": confusion.miou()}, {"miou": confusion.areas()}
    if kind.classes[0] == BACKGROUND and len(kind.classes) > 1:
        values["miou_things"] = confusion.miou(range(1, len(kind.classes)))
        areas["miou_things"] = areas["miou"][:, 1:]
    names = {"model": model, "checkpoint": checkpoint, "leak": leak}
    rows = rows_of(values, test, config, protocol, task=TASK, dataset=test.name, **names)
    return ZeroShotOutcome(rows, areas)


def segment(
    clip: Clip,
    image: np.ndarray,
    weights: Tensor,
    config: ZeroShotConfig,
    *,
    size: tuple[int, int] | None = None,
    label: str = "segmentation by text",
) -> np.ndarray:
    """Class ids (H, W) of a picture (H, W, 3) uint8 by embeddings `weights` (K, D) of K classes.

    size: of the result, by default the picture's.
    label: the start of the ValueError that is raised where the cells' embeddings are not finite.
    """
    side = seen_side(clip, config.resolution)
    seen = torch.from_numpy(view_image(image, WHOLE, (side, side)).copy())
    device = device_of(clip)
    batch = seen.to(device).permute(2, 0, 1)[None].float() / 255  # (1, 3, r, r)
    with computed_in(config.precision, device):
        cells = patch_embeddings(clip.image, batch)[0]  # (D, h, w)
    require_finite(cells, "pictures", config, label=label)
    cosines = torch.einsum("kd,dhw->khw", weights.to(device), cells.float())[None]
    scores = F.interpolate(cosines, size or image.shape[:2], mode="bilinear", align_corners=False)
    return scores[0].max(0).indices.cpu().numpy()


def _compare(
    clip: Clip,
    test: DenseDataset,
    kind: ClassMap,
    weights: Tensor,
    config: ZeroShotConfig,
    label: str,
) -> ImageConfusion:
    confusion = ImageConfusion(len(kind.classes), kind.ignore)
    for index in track(range(len(test)), label=label):
        item = test[index]
        size = item.target.shape[:2]
        ids = segment(clip, item.image, weights, config, size=size, label=label)
        confusion.update(ids, item.target)
    return confusion


def _scoring(kind: ClassMap, confusion: ImageConfusion) -> dict[str, object]:
    """What rows say of the scoring, in the words of the probes' rows."""
    return {
        "background": "prompted by its name" if kind.classes[0] == BACKGROUND else "none",
        "ignore_index": kind.ignore,
        "miou": "global confusion matrix; classes absent from the ground truth left out",
        **confusion.by_class(kind.classes),
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
