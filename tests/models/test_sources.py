"""Models of other libraries, from folders and the hub's cache; each wrong case names its fault."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from cliptex.models.clip import Clip, build_clip, describe_clip, load_clip
from cliptex.models.config import ClipConfig, ModelSpec
from cliptex.models.encoder import fingerprint
from cliptex.models.sources import named_config, read_weights

TEXTS = ["a red ball", "two chairs and a lamp"]
TEXT = {"context_length": 8, "width": 16, "heads": 2, "layers": 1}
VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def open_clip_folder(tmp_path: Path) -> tuple[Any, Path]:
    """A tiny model in the layout of open_clip's repositories on the hub, text tower at the top."""
    torch.manual_seed(5)
    model_cfg = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True}
    model = open_clip.CLIP(**model_cfg).eval()  # pyright: ignore[reportArgumentType]
    folder = tmp_path / "open_clip"
    folder.mkdir()
    colours = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"}
    content = {"model_cfg": model_cfg, "preprocess_cfg": colours}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return model, folder


@pytest.fixture
def hf_folder(tmp_path: Path) -> tuple[Any, Path]:
    """A tiny CLIPModel as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(6)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "quick_gelu"}
    text = {**sizes, "hidden_size": 32, "intermediate_size": 96, "eos_token_id": 49407}
    vision = {**sizes, "hidden_size": 48, "intermediate_size": 96, "image_size": 32}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**vision, "patch_size": 8}, projection_dim=24
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "hf")
    return model, tmp_path / "hf"


@torch.no_grad()
def check_open_clip(ours: Clip, theirs: Any) -> None:
    images, tokens = rand(2, 3, 32, 32), ours.tokenize(TEXTS)
    normal = (images - ours.image.mean) / ours.image.std
    assert torch.equal(ours.encode_image(images), theirs.encode_image(normal, normalize=True))
    assert torch.equal(ours.encode_text(tokens), theirs.encode_text(tokens, normalize=True))


def test_open_clips_folder(open_clip_folder: tuple[Any, Path]) -> None:
    theirs, folder = open_clip_folder
    ours = load_clip(folder)
    check_open_clip(ours, theirs)
    assert ours.config.mean == (0.5, 0.4, 0.3) and ours.config.std == (0.2, 0.3, 0.4)
    assert ours.config.quick_gelu
    torch.save(theirs.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    check_open_clip(load_clip(folder), theirs)
    assert fingerprint(build_clip(ModelSpec(name=str(folder)))) == fingerprint(ours)


@torch.no_grad()
def test_hugging_faces_folder(hf_folder: tuple[Any, Path]) -> None:
    theirs, folder = hf_folder
    ours = load_clip(folder)
    assert ours.config.quick_gelu and ours.image.embed_dim == 24
    images, tokens = rand(2, 3, 32, 32), ours.tokenize(TEXTS)
    normal = (images - ours.image.mean) / ours.image.std
    image = theirs.visual_projection(theirs.vision_model(pixel_values=normal).pooler_output)
    text = theirs.text_projection(theirs.text_model(input_ids=tokens).pooler_output)
    assert (F.normalize(image, dim=-1) - ours.encode_image(images)).abs().max() < 1e-5
    assert (F.normalize(text, dim=-1) - ours.encode_text(tokens)).abs().max() < 1e-5
    assert ours.logit_scale == theirs.logit_scale


def test_hugging_faces_older_files(hf_folder: tuple[Any, Path]) -> None:
    """Position numbers among the weights, the old end-of-text id, a second dictionary of sizes."""
    theirs, folder = hf_folder
    ours = load_clip(folder)
    weights = folder / "model.safetensors"
    state = {**load_file(weights), "text_model.embeddings.position_ids": torch.arange(77)[None]}
    torch.save(state, folder / "pytorch_model.bin")
    weights.unlink()
    config = json.loads((folder / "config.json").read_text())
    config["text_config_dict"] = {**config["text_config"], "eos_token_id": 2}
    config["text_config"] = None
    (folder / "config.json").write_text(json.dumps(config))
    colours = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))
    again = load_clip(folder)
    assert again.config.mean == (0.5, 0.5, 0.5) and again.config.std == (0.25, 0.25, 0.25)
    for key, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], None]:
    """A local cache that holds a folder as a repository, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(folder: Path, repository: str) -> None:
        root = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        revision = "0123456789abcdef0123456789abcdef01234567"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text(revision)
        (root / "snapshots").mkdir()
        os.rename(folder, root / "snapshots" / revision)

    return put


def test_hub_names(
    open_clip_folder: tuple[Any, Path],
    hf_folder: tuple[Any, Path],
    hub: Callable[[Path, str], None],
) -> None:
    theirs, folder = open_clip_folder
    hub(folder, "org/tiny-open-clip")
    check_open_clip(load_clip("hf-hub:org/tiny-open-clip"), theirs)
    check_open_clip(load_clip("hf-hub:org/tiny-open-clip@main"), theirs)
    direct = load_clip(hf_folder[1])
    hub(hf_folder[1], "org/tiny-hf")
    spec = ModelSpec(name="hf-hub:org/tiny-hf")
    assert describe_clip(spec) == direct.config
    assert fingerprint(build_clip(spec)) == fingerprint(direct)
    for missing in ("hf-hub:org/absent", "hf-hub:org/tiny-hf@v2"):
        with pytest.raises(ValueError, match=f"{missing}: the hub cannot be reached.*HF_HOME"):
            load_clip(missing)
    with pytest.raises(ValueError, match="hf-hub:a/b/c"):
        load_clip("hf-hub:a/b/c")


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_faults_of_open_clips_folder(open_clip_folder: tuple[Any, Path]) -> None:
    _, folder = open_clip_folder
    weights, config = folder / "open_clip_model.safetensors", folder / "open_clip_config.json"
    state = load_file(weights)
    save_file({k: v for k, v in state.items() if k != "visual.proj"}, weights)
    with pytest.raises(ValueError, match=r"model\.safetensors: lacks key 'image.tower.proj'"):
        load_clip(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"open_clip_model\.safetensors does not exist"):
        load_clip(folder)
    config.write_text('{"model_cfg": {"embed_dim": 3}}')
    with pytest.raises(ValueError, match=r"open_clip_config\.json: not an open_clip.*vision_cfg"):
        load_clip(folder)
    config.write_text("[]")
    with pytest.raises(ValueError, match=r"open_clip_config\.json: not a model description"):
        load_clip(folder)


def test_faults_of_hugging_faces_folder(hf_folder: tuple[Any, Path]) -> None:
    _, folder = hf_folder
    config, weights = folder / "config.json", folder / "model.safetensors"
    good, state = config.read_text(), load_file(weights)
    rewrite(config, model_type="siglip")
    with pytest.raises(ValueError, match=r"config\.json: model_type is 'siglip'"):
        load_clip(folder)
    rewrite(config, model_type=None, architecture="resnet18")
    with pytest.raises(ValueError, match="timm:NAME/TAG, here timm:resnet18"):
        load_clip(folder)
    config.write_text(good)
    vision = {**json.loads(good)["vision_config"], "hidden_act": "gelu"}
    rewrite(config, vision_config=vision)
    with pytest.raises(ValueError, match="hidden_act"):
        load_clip(folder)
    config.write_text(good)
    text = {**json.loads(good)["text_config"], "eos_token_id": 7}
    rewrite(config, text_config=text)
    with pytest.raises(ValueError, match="eos_token_id is 7"):
        load_clip(folder)
    config.write_text(good)
    save_file({**state, "extra.weight": torch.zeros(1)}, weights)
    with pytest.raises(ValueError, match=r"model\.safetensors: unknown key 'extra.weight'"):
        load_clip(folder)
    gone = "text_model.encoder.layers.1.self_attn.k_proj.bias"
    save_file({k: v for k, v in state.items() if k != gone}, weights)
    with pytest.raises(ValueError, match=gone):
        load_clip(folder)


def test_faults_of_files(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save({"model": torch.nn.Linear(2, 2)}, weights)
    with pytest.raises(ValueError, match="could run code"):
        read_weights(weights)
    torch.save({"weight": torch.zeros(1), "epoch": 3}, weights)
    with pytest.raises(ValueError, match="key 'epoch' holds no tensor"):
        read_weights(weights)
    for content in ([torch.zeros(1)], {}, torch.zeros(2)):
        torch.save(content, weights)
        with pytest.raises(ValueError, match="no dictionary of tensors"):
            read_weights(weights)
    weights.write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read"):
        read_weights(weights)
    with pytest.raises(ValueError, match="weights alone do not say their architecture"):
        load_clip(weights)


def test_wrapped_weights(tmp_path: Path) -> None:
    """open_clip's training checkpoints: a state dict under that key, from DDP."""
    described = ClipConfig(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT)
    model = build_clip(ModelSpec(config=described, seed=4))
    state = {
        "module." + k.replace("image.tower.", "visual."): v for k, v in model.state_dict().items()
    }
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    spec = ModelSpec(config=described, weights=str(tmp_path / "epoch_3.pt"))
    assert fingerprint(build_clip(spec)) == fingerprint(model)


def test_a_tag_says_activation_and_colours() -> None:
    assert named_config("open_clip:ViT-B-16", "openai").quick_gelu
    assert not named_config("open_clip:ViT-B-16").quick_gelu
    assert not named_config("open_clip:ViT-B-16", "laion2b_s34b_b88k").quick_gelu
    assert named_config("open_clip:ViT-B-16-SigLIP", "webli").mean == (0.5, 0.5, 0.5)
