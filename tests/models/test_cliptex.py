"""Pyramid, heads and the whole model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cliptex.models.clip import Clip
from cliptex.models.cliptex import build_cliptex, heavy_head, light_head
from cliptex.models.config import DenseConfig
from cliptex.models.encoder import fingerprint
from cliptex.models.heads import PyramidPooling, norm_layer


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 7), (16, 12)])
def test_pyramid_keeps_the_grid_and_is_exact_for_one(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(70, width=32, dropout=0.0)
    x = torch.randn(3, 70, *size)
    out = pyramid(x)
    assert out.shape == (3, 32, *size)
    assert (pyramid(x[:1]) - out[:1]).abs().max() < 1e-5  # training mode, batch of one


def test_pyramid_widths_are_the_authors() -> None:
    pyramid = PyramidPooling(768)
    assert pyramid.branches[0][0].weight.shape == (192, 768, 1, 1)  # pyright: ignore
    assert pyramid.fuse[0].weight.shape == (512, 1536, 3, 3)


def test_pyramid_sees_the_whole_map() -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(32, width=16, norm="batch").eval()  # this norm mixes no cells
    x = torch.randn(1, 32, 20, 20, requires_grad=True)
    pyramid(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None and x.grad[0, :, -1, -1].abs().sum() > 0


def test_norms() -> None:
    group = norm_layer("group", 512)
    assert isinstance(group, nn.GroupNorm) and group.num_groups == 32
    assert isinstance(norm_layer("batch", 8), nn.BatchNorm2d)
    one_cell = norm_layer("group", 16)(torch.randn(1, 16, 1, 1))
    assert one_cell.abs().max() > 0.1


def test_heads() -> None:
    x = torch.randn(2, 32, 4, 6)
    assert light_head(32, 5)(x).shape == heavy_head(32, 5)(x).shape == (2, 5, 4, 6)
    assert [p.ndim for p in light_head(32, 5).parameters()] == [4, 1]
    convolutions = [m for m in heavy_head(32, 5).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 3


@pytest.mark.parametrize("head", ["light", "heavy"])
def test_cliptex(tiny: Callable[..., Clip], head: str) -> None:
    config = DenseConfig(width=32, head=head)  # pyright: ignore[reportArgumentType]
    model = build_cliptex(tiny("vit"), {"depth": 1, "segmentation": 7}, config, seed=3)
    images, tokens = torch.rand(2, 3, 48, 32), model.clip.tokenize(["a", "b"])
    out = model(images, tokens)
    assert {k: v.shape for k, v in out.predictions.items()} == {
        "depth": (2, 1, 6, 4),
        "segmentation": (2, 7, 6, 4),
    }
    assert out.image_embedding.norm(dim=1).tolist() == pytest.approx([1, 1])
    assert torch.equal(out.text_embedding, model.clip.encode_text(tokens))
    model.eval()
    again = build_cliptex(tiny("vit"), {"depth": 1, "segmentation": 7}, config, seed=3)
    assert fingerprint(again) == fingerprint(model)
    assert torch.equal(model.predict(images)["depth"], model(images, tokens).predictions["depth"])


def test_gradient_reaches_the_image_tower_through_a_head(tiny: Callable[..., Clip]) -> None:
    model = build_cliptex(tiny("vit"), {"depth": 1}, DenseConfig(width=16), seed=0)
    out = model(torch.rand(1, 3, 32, 32), model.clip.tokenize(["a"]))
    out.predictions["depth"].square().sum().backward()
    assert model.clip.image.tower.conv1.weight.grad.abs().sum() > 0  # pyright: ignore
    assert model.clip.text.token_embedding.weight.grad is None
