"""Towers give open_clip's embeddings to the bit at native size, and maps at any size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F

from cliptex.models.clip import Clip, random_clip
from cliptex.models.config import ClipConfig
from cliptex.models.sources import named_config
from cliptex.models.towers import resize_positions

FAMILIES = ["vit", "vit-avg", "vit-attn", "vit-stem", "resnet", "timm-cnn", "timm-vit"]


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_embedding_is_the_towers_own(tiny: Callable[..., Clip], family: str) -> None:
    encoder = tiny(family).image
    images = rand(2, 3, encoder.image_size, encoder.image_size)
    own = encoder.tower((images - encoder.mean) / encoder.std)  # pyright: ignore
    features = encoder(images)
    assert torch.equal(features.embedding, own)
    assert features.embedding.shape == (2, encoder.embed_dim)
    assert features.pooled.shape == (2, encoder.pooled_channels)


@torch.no_grad()
def test_whole_model_equals_open_clips(
    tiny: Callable[..., Clip], config: Callable[..., ClipConfig]
) -> None:
    """The towers' attention and text modules are ours or rearranged: compare with the original."""
    ours, described = tiny("vit"), config("vit")
    original = CLIP(24, described.vision_cfg, described.text_cfg).eval()  # pyright: ignore
    state = ours.state_dict()
    for name, value in original.state_dict().items():
        at_image = name.replace("visual.", "image.tower.")
        value.copy_(state.get(name, state.get(at_image, state.get(f"text.{name}"))))
    images, tokens = rand(2, 3, 32, 32), ours.tokenize(["a red ball", "two chairs and a lamp"])
    normal = (images - ours.image.mean) / ours.image.std
    assert torch.equal(ours.encode_image(images), original.encode_image(normal, normalize=True))
    assert torch.equal(ours.encode_text(tokens), original.encode_text(tokens, normalize=True))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_maps_at_other_sizes(tiny: Callable[..., Clip], family: str) -> None:
    encoder = tiny(family).image
    cells = (encoder.image_size // encoder.stride + 1, encoder.image_size // encoder.stride - 1)
    features = encoder(rand(2, 3, cells[0] * encoder.stride, cells[1] * encoder.stride))
    assert max(features.maps) == encoder.stride
    assert features.maps[encoder.stride].shape == (2, encoder.channels, *cells)
    assert features.embedding.isfinite().all()


@pytest.mark.parametrize("family", ["vit", "vit-stem", "resnet", "timm-cnn", "timm-vit"])
@torch.no_grad()
def test_maps_lie_where_the_picture_is(tiny: Callable[..., Clip], family: str) -> None:
    """A change in one corner changes that corner of the map most: no rows and columns mixed up."""
    encoder = tiny(family).image
    side, cell = encoder.image_size, encoder.stride
    images = torch.full((1, 3, side, side + 2 * cell), 0.5)
    changed = images.clone()
    changed[:, :, :cell, -cell:] = rand(1, 3, cell, cell)
    first, second = (encoder(x).maps[cell] for x in (images, changed))
    change = (first - second).abs().sum(1)[0]  # (h, w)
    assert change.argmax() == change.shape[1] - 1


@pytest.mark.parametrize(
    ("family", "widths"),
    [
        ("vit", {8: 32}),
        ("timm-vit", {16: 64}),
        ("resnet", {4: 32, 8: 64, 16: 128, 32: 256}),
        ("timm-cnn", {4: 24, 8: 32, 16: 48, 32: 256}),
    ],
)
@torch.no_grad()
def test_maps__of_every_stage_of_a_cnn(
    tiny: Callable[..., Clip], family: str, widths: dict[int, int]
) -> None:
    encoder = tiny(family).image
    maps = encoder(rand(2, 3, 64, 96)).maps
    expected = {s: (2, width, 64 // s, 96 // s) for s, width in widths.items()}
    assert {stride: tuple(x.shape) for stride, x in maps.items()} == expected
    assert list(maps) == sorted(maps)


@torch.no_grad()
def test_maps__are_the_inputs_of_the_next_stage(tiny: Callable[..., Clip]) -> None:
    encoder = tiny("resnet").image
    maps = encoder(rand(1, 3, 64, 64)).maps
    assert torch.equal(encoder.tower.layer4(maps[16]), maps[32])  # pyright: ignore
    assert torch.equal(encoder.tower.layer2(maps[4]), maps[8])  # pyright: ignore


@torch.no_grad()
def test_features_do_not_depend_on_the_batch(tiny: Callable[..., Clip]) -> None:
    encoder, images = tiny("vit-stem").train().image, rand(3, 3, 32, 32)
    alone, together = encoder(images[:1]).maps[8], encoder(images).maps[8][:1]
    assert (alone - together).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(33, 32), (32, 36)])
def test_sizes_that_do_not_divide_are_refused(
    tiny: Callable[..., Clip], size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        tiny("vit").image(torch.zeros(1, 3, *size))
    with pytest.raises(ValueError, match="must be"):
        tiny("vit").image(torch.zeros(1, 1, 32, 32))


def test_positions_are_resized_on_the_grid() -> None:
    ramp = torch.arange(4.0)
    grid = torch.stack([ramp[:, None].expand(4, 4), ramp[None].expand(4, 4)], -1)  # row, column
    table = torch.cat([torch.tensor([[9.0, 9.0]]), grid.reshape(16, 2)])
    assert resize_positions(table, (4, 4)) is table
    larger = resize_positions(table, (8, 6))
    assert larger[0].tolist() == [9, 9]
    expected = F.interpolate(grid.permute(2, 0, 1)[None], (8, 6), mode="bicubic")
    assert torch.equal(larger[1:].reshape(8, 6, 2).permute(2, 0, 1), expected[0])
    rows = larger[1:].reshape(8, 6, 2)[..., 0]
    assert torch.allclose(rows, rows[:, :1], atol=1e-6)  # the row number varies along rows alone


def test_positions_along_the_raster() -> None:
    """Row 0 of a 4 x 2 grid made from 2 x 2 mixes both rows' entries, worked by hand."""
    table = torch.tensor([[9.0], [0.0], [1.0], [2.0], [3.0]])  # entries of rows 0 0 1 1
    larger = resize_positions(table, (4, 2), "flat1d").flatten().tolist()
    assert larger == [9, 0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert resize_positions(table, (1, 4), "flat1d") is table  # it knows the number alone


@pytest.mark.parametrize("size", [(96, 96), (128, 64)])
@torch.no_grad()
def test_pool_positions_differ_at_other_sizes(
    tiny: Callable[..., Clip], size: tuple[int, int]
) -> None:
    grid, flat = tiny("resnet"), tiny("resnet", pool_pos="flat1d")
    images = rand(2, 3, *size)
    one, other = grid.image(images), flat.image(images)
    assert torch.equal(one.maps[32], other.maps[32])
    pool = flat.image.tower.attnpool  # pyright: ignore
    table = pool.positional_embedding.clone()  # 1 + 2 * 2
    cells = size[0] * size[1] // 32**2
    raster = F.interpolate(table[1:].T[None], size=cells, mode="linear")[0].T
    pool.positional_embedding = torch.nn.Parameter(torch.cat([table[:1], raster]))
    assert torch.equal(other.embedding, pool(one.maps[32]))
    assert (one.embedding - other.embedding).abs().max() > 1e-4


@torch.no_grad()
def test_pool_positions_do_not_matter_at_native_size(tiny: Callable[..., Clip]) -> None:
    images = rand(2, 3, 64, 64)
    one, other = (tiny("resnet", pool_pos=rule).image(images) for rule in ("grid2d", "flat1d"))
    assert torch.equal(one.embedding, other.embedding)


@pytest.mark.parametrize("family", ["vit", "timm-cnn"])
def test_pool_positions_are_for_attention_pools(tiny: Callable[..., Clip], family: str) -> None:
    with pytest.raises(ValueError, match="`pool_pos=flat1d` applies only to ResNets"):
        tiny(family, pool_pos="flat1d")


@pytest.mark.parametrize(
    ("name", "patch", "width", "layers"),
    [
        ("ViT-L-14", 14, 1024, 24),
        ("ViT-H-14", 14, 1280, 32),
        ("ViT-H-16", 16, 1280, 32),
    ],
)
def test_large_towers_are_built_without_memory(
    name: str, patch: int, width: int, layers: int
) -> None:
    with torch.device("meta"):
        encoder = random_clip(named_config(f"open_clip:{name}"), 0).image
        assert (encoder.stride, encoder.channels, encoder.image_size) == (patch, width, 224)
        assert len(encoder.tower.transformer.resblocks) == layers  # pyright: ignore
        features = encoder(torch.zeros(1, 3, 4 * patch, 6 * patch))
        assert features.maps[patch].shape == (1, width, 4, 6)
        with pytest.raises(ValueError, match=f"multiples of {patch}"):
            encoder(torch.zeros(1, 3, 4 * patch, 6 * patch + 8))


def test_bf16_autocast_is_close_and_trains(tiny: Callable[..., Clip]) -> None:
    model = tiny("vit-stem")
    images, tokens = rand(2, 3, 64, 64), model.tokenize(["a", "b"])
    exact = [x.detach() for x in model(images, tokens)]
    with torch.autocast("cpu", torch.bfloat16):
        half = model(images, tokens)
    for one, other in zip(exact, half, strict=True):
        assert other.dtype == torch.float32
        assert (one - other).abs().max() < 0.03
    (half[0] * half[1]).sum().backward()
    unused = {"logit_scale"}
    assert {n for n, p in model.named_parameters() if p.grad is None} == unused
