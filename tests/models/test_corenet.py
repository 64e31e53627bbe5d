"""The authors' CLIP: released names and shapes, arithmetic written out, files in and out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from cliptex.models.clip import Clip, build_clip, describe_clip, load_clip, save_clip
from cliptex.models.config import ClipConfig, ModelSpec
from cliptex.models.corenet import CORENET_MODELS, CoreNetClip, corenet_config
from cliptex.models.encoder import FrozenEncoder, fingerprint

REFERENCE = Path(
    os.environ.get("CLIPTEX_REFERENCE", Path(__file__).parents[3] / "shared" / "reference")
)
SIZES = {"layers": 2, "heads": 2}
TINY = ClipConfig(
    family="corenet",
    embed_dim=24,
    vision_cfg={**SIZES, "width": 128, "hidden": 256, "positions": 16},
    text_cfg={**SIZES, "width": 128, "hidden": 512, "positions": 77, "vocab_size": 49408},
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


def released(model: Clip) -> dict[str, Tensor]:
    """The state dict as the authors' library would save it."""
    names = {"image.tower.": "image_encoder.", "text.": "text_encoder."}
    state = {}
    for key, value in model.state_dict().items():
        for own, theirs in names.items():
            if key.startswith(own):
                key = theirs + key.removeprefix(own)
                break
        state[key] = value
    return state


@pytest.fixture
def model() -> Clip:
    """A tiny model whose batch statistics and biases are not those of a new module."""
    made = build_clip(ModelSpec(config=TINY, seed=1)).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in (*made.named_parameters(), *made.named_buffers()):
            if value.ndim == 1 and value.is_floating_point():
                noise = 0.2 * torch.rand(value.shape, generator=generator)
                value.add_(noise if "weight" in name or "var" in name else noise - 0.1)
    return made


@pytest.mark.parametrize(
    ("name", "parameters"), [("ViT-B-16", 149_776_647), ("ViT-H-16", 756_107_783)]
)
def test_names__equal_the_released_checkpoints(name: str, parameters: int) -> None:
    path = REFERENCE / "checkpoint_keys" / f"corenet_clip_{name.replace('-', '_').lower()}.json"
    path = path.with_name(path.name.replace("_b_16", "_b16").replace("_h_16", "_h16"))
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with torch.device("meta"):
        state = CoreNetClip(CORENET_MODELS[name]).state_dict()
    listed = json.loads(path.read_text())
    assert [(key, list(value.shape)) for key, value in state.items()] == list(listed.items())
    counted = [v for k, v in state.items() if "running_" not in k and "num_batches" not in k]
    assert sum(value.numel() for value in counted) == parameters
    assert corenet_config(state, "meta") == CORENET_MODELS[name]


def by_hand(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The image tower from its parameters alone: class token before projection, patch tokens."""

    def stem(i: int, x: Tensor) -> Tensor:
        part = f"patch_emb.{i}.block."
        x = F.conv2d(x, state[part + "conv.weight"], state.get(part + "conv.bias"), 4 if i == 0
                     else 2, padding=1 if i == 0 else 0)  # fmt: skip
        if i == 2:
            return x
        mean, var = state[part + "norm.running_mean"], state[part + "norm.running_var"]
        weight, bias = state[part + "norm.weight"], state[part + "norm.bias"]
        return F.gelu(F.batch_norm(x, mean, var, weight, bias))

    for i in range(3):
        x = stem(i, x)
    x = x.flatten(2).mT  # (B, N, C)
    table = state["pos_embed.pos_embed.pos_embed"]
    x = x + F.interpolate(table, size=x.shape[1:], mode="bilinear", align_corners=False)[0]
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1)
    return split(norm(state, "post_transformer_norm", blocks(state, x, None, 1e-6), 1e-6))


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, 0], x[:, 1:]


def norm(state: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def blocks(state: dict[str, Tensor], x: Tensor, mask: Tensor | None, eps: float) -> Tensor:
    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    for i in range(SIZES["layers"]):
        at = f"transformer.{i}."
        y = norm(state, at + "pre_norm_mha.0", x, eps)
        q, k, v = linear(at + "pre_norm_mha.1.qkv_proj", y).chunk(3, -1)
        mixed = []
        for head in range(SIZES["heads"]):
            part = slice(64 * head, 64 * head + 64)
            scores = q[..., part] @ k[..., part].mT / 8
            mixed.append((scores if mask is None else scores + mask).softmax(-1) @ v[..., part])
        x = x + linear(at + "pre_norm_mha.1.out_proj", torch.cat(mixed, -1))
        y = F.gelu(linear(at + "pre_norm_ffn.1", norm(state, at + "pre_norm_ffn.0", x, eps)))
        x = x + linear(at + "pre_norm_ffn.4", y)
    return x


@pytest.mark.parametrize("size", [(64, 64), (128, 96)])
@torch.no_grad()
def test_image_tower__by_hand(model: Clip, size: tuple[int, int]) -> None:
    images = rand(2, 3, *size)
    features = model.image(images)
    state = dict(model.image.tower.state_dict())  # pyright: ignore
    pooled, tokens = by_hand(state, images)
    cells = (size[0] // 16, size[1] // 16)
    torch.testing.assert_close(features.pooled, pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.embedding, pooled @ state["classifier.proj"])
    dense = tokens.mT.unflatten(2, cells)
    torch.testing.assert_close(features.maps[16], dense, atol=1e-5, rtol=1e-5)
    assert model.image.image_size == 64 and model.image.channels == 128


@torch.no_grad()
def test_positions__on_the_grid_if_asked(model: Clip, tmp_path: Path) -> None:
    config = TINY.model_copy(update={"pool_pos": "grid2d"})
    grid = build_clip(ModelSpec(config=config, seed=1)).eval()
    grid.load_state_dict(model.state_dict())
    native, side = rand(1, 3, model.image.image_size, model.image.image_size), 2
    assert torch.equal(grid.encode_image(native), model.encode_image(native))
    wide = rand(1, 3, side * model.image.image_size, model.image.image_size)
    assert not torch.allclose(grid.encode_image(wide), model.encode_image(wide), atol=1e-3)
    # A table of equal rows, which differ by column alone, keeps its columns on the grid.
    n = model.image.image_size // 16
    table = grid.image.tower.pos_embed.pos_embed.pos_embed
    table.copy_(torch.randn(1, 1, 1, n, table.shape[-1]).expand(1, 1, n, n, -1).flatten(2, 3))
    stretched = grid.image.tower._positions((2 * n, n)).unflatten(1, (2 * n, n))
    torch.testing.assert_close(stretched, table.view(1, n, n, -1)[:, :1].expand_as(stretched))
    assert load_clip(save_clip(grid, tmp_path / "grid")).config.pool_pos == "grid2d"


@torch.no_grad()
def test_text_tower__by_hand(model: Clip) -> None:
    tokens = model.tokenize(["a red ball", "two chairs and a lamp"])
    state = dict(model.text.state_dict())
    x = (
        state["embedding_layer.weight"][tokens]
        + state["positional_embedding.pos_embed.pos_embed"][0]
    )
    mask = torch.full((77, 77), -torch.inf).triu(1)
    x = norm(state, "final_layer_norm", blocks(state, x, mask, 1e-5), 1e-5)
    ends = torch.stack([row[list(ids).index(49407)] for row, ids in zip(x, tokens, strict=True)])
    expected = ends @ state["projection_layer"]
    torch.testing.assert_close(model.text(tokens), expected, atol=1e-5, rtol=1e-5)
    short = model.text(tokens[:, :9])  # behind the end there are zeros only
    torch.testing.assert_close(short, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="78 tokens"):
        model.text(torch.zeros(1, 78, dtype=torch.long))


def test_captions__are_cleaned_as_the_authors_do(model: Clip) -> None:
    ours = model.tokenize(["A <b>Red</b>+Ball%21  \n"])
    assert ours.shape == (1, 77)
    assert ours[0, 0] == 49406 and ours.max() == 49407
    assert torch.equal(ours, model.tokenize(["a red ball!"]))
    long = model.tokenize(["ball " * 100])
    assert long[0, -1] == 49407 and long[0, 0] == 49406


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@torch.no_grad()
def test_a_released_file_is_a_model_name(model: Clip, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    state = {key: value.contiguous() for key, value in released(model).items()}
    torch.save(state, path) if suffix == ".pt" else save_file(state, path)
    loaded = load_clip(f"corenet:{path}")
    assert loaded.config == TINY and not loaded.training
    images = rand(1, 3, 96, 64)
    assert torch.equal(loaded.encode_image(images), model.encode_image(images))
    assert fingerprint(build_clip(ModelSpec(name=f"corenet:{path}"))) == fingerprint(model)
    assert describe_clip(ModelSpec(name=f"corenet:{path}")) == TINY
    again = save_clip(loaded, tmp_path / "clip")
    assert load_file(again / "model.safetensors").keys() == state.keys()  # goes back to the library
    assert fingerprint(load_clip(again)) == fingerprint(model)


@pytest.mark.parametrize(
    ("name", "width"), [("ViT-B-16", 768), pytest.param("ViT-H-16", 1280, marks=pytest.mark.slow)]
)
def test_released_sizes__run_at_two_resolutions(tmp_path: Path, name: str, width: int) -> None:
    """Random weights in the released layout: saved, loaded by name, run at 224 and 384 x 512."""
    start = build_clip(ModelSpec(name=f"corenet:{name}", seed=3))
    path = tmp_path / "clip.pt"
    torch.save(released(start), path)
    model = load_clip(f"corenet:{path}")
    frozen = FrozenEncoder(model.image)
    native, wide = frozen(rand(1, 3, 224, 224)), frozen(rand(1, 3, 384, 512))
    assert native.maps[16].shape == (1, width, 14, 14) and native.embedding.shape == (1, 512)
    assert wide.maps[16].shape == (1, width, 24, 32) and wide.embedding.isfinite().all()
    assert model.encode_text(model.tokenize(["a dog"])).shape == (1, 512)
    assert model.scale.item() == pytest.approx(1 / 0.07)


def test_it_trains_like_any_clip(model: Clip) -> None:
    images, texts, scale = model.train()(rand(2, 3, 64, 96), model.tokenize(["a", "b"]))
    (scale * images * texts).sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is None} == set()


def test_faults_are_named(model: Clip, tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    with pytest.raises(ValueError, match="no such file, and no model among"):
        load_clip(f"corenet:{path}")
    save_file({"visual.proj": torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match="lacks key 'image_encoder.classifier.proj'"):
        load_clip(f"corenet:{path}")
    state = {key: value.contiguous() for key, value in released(model).items()}
    save_file({k: v for k, v in state.items() if "cls_token" not in k}, path)
    with pytest.raises(ValueError, match="lacks key 'image.tower.cls_token'"):
        load_clip(f"corenet:{path}")
    with pytest.raises(ValueError, match="unknown key 'patch_size'"):
        build_clip(ModelSpec(config=TINY.model_copy(update={"vision_cfg": {"patch_size": 16}})))
    with pytest.raises(ValueError, match="`quick_gelu` does not apply"):
        build_clip(ModelSpec(config=TINY.model_copy(update={"quick_gelu": True})))
