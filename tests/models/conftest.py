"""Tiny towers of every family, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cliptex.models.clip import Clip, build_clip
from cliptex.models.config import ClipConfig, ModelSpec

TEXT = {"context_length": 8, "width": 16, "heads": 2, "layers": 1, "vocab_size": 49408}
VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"vision_cfg": VIT},
    "vit-avg": {"vision_cfg": {**VIT, "pool_type": "avg", "final_ln_after_pool": True}},
    "vit-attn": {"vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_queries": 4}},
    "vit-stem": {"vision_cfg": VIT, "conv_stem": True},
    "resnet": {
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 64}
    },
    "timm-cnn": {
        "vision_cfg": {"timm_model_name": "test_efficientnet", "image_size": 64},
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
    "timm-vit": {
        "vision_cfg": {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token"}
    },
}


@pytest.fixture
def config() -> Callable[..., ClipConfig]:
    def make(name: str, **changes: Any) -> ClipConfig:
        return ClipConfig.model_validate(
            {"embed_dim": 24, "text_cfg": TEXT, **CONFIGS[name], **changes}
        )

    return make


@pytest.fixture
def tiny(config: Callable[..., ClipConfig]) -> Callable[..., Clip]:
    """Build a tiny Clip of a family in evaluation mode."""

    def make(name: str, seed: int = 0, **changes: Any) -> Clip:
        return build_clip(ModelSpec(config=config(name, **changes), seed=seed)).eval()

    return make
