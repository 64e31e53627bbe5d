"""ResNets at finer output strides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cliptex.models.clip import Clip, load_clip, random_clip, save_clip
from cliptex.models.config import ClipConfig, ModelSpec
from cliptex.models.towers import StillAverage

TEXT = {"context_length": 8, "width": 16, "heads": 1, "layers": 1, "vocab_size": 64}
MODIFIED = {"image_size": 64, "layers": [2, 2, 2, 2], "width": 8, "head_width": 8}
TOWERS = {
    "ModifiedResNet": MODIFIED,
    "resnet18": {"timm_model_name": "resnet18", "image_size": 64, "timm_pool": ""},
    "resnet26d": {"timm_model_name": "resnet26d", "image_size": 64, "timm_pool": ""},
    "resnet26": {"timm_model_name": "resnet26", "image_size": 64, "timm_pool": ""},
}


def build(tower: str, stride: Any) -> Clip:
    """Random weights, and random statistics of the batch norms."""
    vision = {**TOWERS[tower]}
    if tower != "ModifiedResNet":
        vision["timm_proj"] = "linear"
    config = ClipConfig(embed_dim=8, vision_cfg=vision, text_cfg=TEXT, output_stride=stride)
    clip = random_clip(config, 0).eval()
    generator = torch.Generator().manual_seed(1)
    for module in clip.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            if module.affine:  # last norms of blocks start at zero in timm
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    return clip


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("stride", [16, 8])
@torch.no_grad()
def test_old_places_and_the_embedding_are_as_before(tower: str, stride: int) -> None:
    plain, dilated = build(tower, None), build(tower, stride)
    assert plain.state_dict().keys() == dilated.state_dict().keys()
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    before, after = plain.image(images), dilated.image(images)
    assert dilated.image.stride == stride
    dense = after.maps[stride]
    assert dense.shape[-2:] == (96 // stride, 64 // stride) and max(after.maps) == stride
    assert dense.shape[1] == dilated.image.channels == plain.image.channels
    step = 32 // stride
    scale = before.maps[32].abs().max()
    torch.testing.assert_close(
        dense[..., ::step, ::step] / scale, before.maps[32] / scale, rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(dense[..., 1::step, 1::step] / scale, before.maps[32] / scale, 0.01)
    torch.testing.assert_close(after.embedding, before.embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.pooled, before.pooled, rtol=1e-4, atol=1e-5)
    assert torch.equal(after.maps[4], before.maps[4])


@pytest.mark.parametrize("tower", ["ModifiedResNet", "resnet18"])
@torch.no_grad()
def test_32_is_the_tower_itself_to_the_bit(tower: str) -> None:
    plain, same = build(tower, None), build(tower, 32)
    images = torch.rand(1, 3, 64, 64)
    before, after = plain.image(images), same.image(images)
    assert torch.equal(before.embedding, after.embedding)
    assert all(torch.equal(before.maps[s], after.maps[s]) for s in (4, 8, 16, 32))


def test_average_at_even_places_is_that_of_a_pool() -> None:
    x = torch.rand(2, 3, 8, 12)
    still = StillAverage(1)(x)
    assert still.shape == x.shape
    torch.testing.assert_close(still[..., ::2, ::2], nn.AvgPool2d(2)(x))
    torch.testing.assert_close(StillAverage(2)(x)[..., ::4, ::4], nn.AvgPool2d(2)(x[..., ::2, ::2]))


def test_the_stride_is_saved_and_can_be_asked_for(tmp_path) -> None:
    from cliptex.models.clip import build_clip

    clip = build("ModifiedResNet", 16)
    save_clip(clip, tmp_path)
    assert load_clip(tmp_path).image.stride == 16
    finer = build_clip(ModelSpec(name=str(tmp_path), output_stride=8))
    assert finer.image.stride == 8 and finer.config.output_stride == 8


@pytest.mark.parametrize(
    "vision",
    [
        {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        {
            "timm_model_name": "tf_efficientnet_lite0",
            "image_size": 64,
            "timm_pool": "",
            "timm_proj": "linear",
        },
    ],
)
def test_other_towers_are_refused(vision: dict[str, Any]) -> None:
    config = ClipConfig(embed_dim=8, vision_cfg=vision, text_cfg=TEXT, output_stride=16)
    with pytest.raises(ValueError, match="`output_stride` applies only to ResNets"):
        random_clip(config, 0)


def test_blocks_with_blur_pools_are_refused() -> None:
    vision = {"timm_model_name": "resnetblur50", "image_size": 64, "timm_pool": ""}
    vision["timm_proj"] = "linear"
    config = ClipConfig(embed_dim=8, vision_cfg=vision, text_cfg=TEXT, output_stride=16)
    with torch.device("meta"), pytest.raises(ValueError, match="cannot be dilated"):
        Clip(config)
