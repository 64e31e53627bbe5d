"""timm's towers: their own output at the native size, maps or one clear line at others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from cliptex.models.clip import Clip, load_clip, save_clip
from cliptex.models.encoder import FrozenEncoder
from cliptex.models.timm_encoder import _stride

ROTARY = {"eva02_tiny_patch14_224": 14, "vit_pe_core_tiny_patch16_384": 16}


def vision(name: str, size: int, pool: str = "") -> dict[str, Any]:
    return {"timm_model_name": name, "image_size": size, "timm_pool": pool, "timm_proj": "linear"}


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ROTARY)
@torch.no_grad()
def test_rotary_positions__at_every_size_as_timm_has_them(
    tiny: Callable[..., Clip], name: str
) -> None:
    native, stride = int(name[-3:]), ROTARY[name]
    encoder = tiny("timm-vit", vision_cfg=vision(name, native)).image
    tower: Any = encoder.tower
    theirs = timm.create_model(name, dynamic_img_size=True, num_classes=0).eval()
    theirs.load_state_dict(tower.trunk.state_dict())
    frozen = FrozenEncoder(encoder)
    before = frozen.fingerprint()
    for size in ((6 * stride, 9 * stride), (native, native)):
        images = rand(1, 3, *size)
        normal = (images - encoder.mean) / encoder.std
        features = frozen(images)
        assert torch.equal(features.embedding, tower.head(theirs(normal)))
        tokens = theirs.forward_features(normal)[:, encoder.prefix :]  # pyright: ignore
        assert torch.equal(features.maps[stride].flatten(2).mT, tokens)
        if size == (native, native):
            assert torch.equal(features.embedding, tower(normal))
    assert frozen.fingerprint() == before


@torch.no_grad()
def test_a_tower_of_one_size__is_read_there_and_refused_elsewhere(
    tiny: Callable[..., Clip],
) -> None:
    encoder = tiny("timm-cnn", vision_cfg=vision("test_coatnet", 160)).image
    assert encoder(rand(1, 3, 160, 160)).maps[32].shape[-2:] == (5, 5)
    with pytest.raises(
        ValueError, match=r"test_coatnet takes no images of 320x160.*own size, 160x160"
    ):
        encoder(rand(1, 3, 320, 160))


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("crossvit_tiny_240", 240, "its features are a list, not one map"),
        ("levit_128s", 224, "its only side is 224, which its stride of 64 does not divide"),
    ],
)
def test_a_tower_without_a_map__is_refused_by_name(
    tiny: Callable[..., Clip], name: str, size: int, why: str
) -> None:
    with pytest.raises(ValueError, match=f"timm's {name} gives no dense map .*{why}"):
        tiny("timm-cnn", vision_cfg=vision(name, size))


def test_a_fault_of_the_tower__is_one_line(
    tiny: Callable[..., Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("something of theirs")

    monkeypatch.setattr("timm.models.vision_transformer.VisionTransformer.forward_features", fail)
    with pytest.raises(ValueError, match="timm's test_vit gives no dense map.*something of theirs"):
        tiny("timm-vit")


def test_a_side_that_patches_do_not_fill__is_measured_without_the_rest(
    tiny: Callable[..., Clip],
) -> None:
    """As SigLIP SO400M's 384 pixels in patches of 14."""
    encoder = tiny("timm-vit", vision_cfg=vision("test_vit", 168)).image
    assert (encoder.image_size, encoder.stride, encoder.channels) == (168, 16, 64)
    assert encoder(rand(1, 3, 176, 160)).maps[16].shape == (1, 64, 11, 10)


@torch.no_grad()
def test_projection__is_as_wide_as_a_head_with_a_layer_of_its_own(
    tiny: Callable[..., Clip], tmp_path: Path
) -> None:
    clip = tiny("timm-cnn", vision_cfg=vision("mobilenetv3_small_050", 224))
    encoder, images = clip.image, rand(2, 3, 64, 96)
    features = encoder(images)
    assert (encoder.channels, encoder.pooled_channels) == (288, 1024)
    assert features.maps[32].shape == (2, 288, 2, 3)
    assert features.embedding.shape == (2, 24)
    again = load_clip(save_clip(clip, tmp_path / "clip")).image(images)
    assert torch.equal(again.embedding, features.embedding)


@pytest.mark.parametrize(
    ("side", "cells", "told", "stride"),
    [
        (224, 7, 32, 32),
        (240, 8, 32, 32),  # 7.5 rounded up: EfficientNet-B1
        (260, 9, None, 32),  # 8.1 rounded up, and timm says nothing
        (28, 2, 14, 14),  # 16 would fit, too
        (224, 14, 32, 16),  # dilated since timm wrote its table
    ],
)
def test_stride(side: int, cells: int, told: int | None, stride: int) -> None:
    class Trunk:
        feature_info = [{"reduction": told}] if told else []

    def shape(n: int) -> torch.Size:
        return torch.Size((1, 3, n, n))

    assert _stride(Trunk, shape(side), shape(cells)) == stride


def test_stride__of_maps_without_regular_cells() -> None:
    """Inception v3 sees 299 pixels as 8 cells: it does not pad its convolutions."""
    with pytest.raises(ValueError, match=r"\(8, 8\) cells, of no whole number"):
        _stride(None, torch.Size((1, 3, 299, 299)), torch.Size((1, 2048, 8, 8)))
