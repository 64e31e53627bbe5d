"""Building, saving and loading, and what is said when weights do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from cliptex.models.clip import Clip, build_clip, load_clip, save_clip
from cliptex.models.config import ClipConfig, ModelSpec
from cliptex.models.encoder import fingerprint
from cliptex.models.sources import check_file, named_config
from cliptex.models.tokenizer import compact_vocabulary

CAPTIONS = ["a red ball on the floor", "two chairs!"]


def test_the_seed_alone_decides(tiny: Callable[..., Clip]) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two, other = tiny("vit"), tiny("vit"), tiny("vit", seed=1)
    assert fingerprint(one) == fingerprint(two) != fingerprint(other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_scale_is_clamped(tiny: Callable[..., Clip]) -> None:
    model = tiny("vit")
    assert model.scale.item() == pytest.approx(1 / 0.07)
    model.logit_scale.data.fill_(9.0)
    assert model.scale.item() == 100


@pytest.mark.parametrize("family", ["vit", "vit-stem", "resnet", "timm-cnn"])
def test_round_trip(tiny: Callable[..., Clip], tmp_path: Path, family: str) -> None:
    model = tiny(family)
    loaded = load_clip(save_clip(model, tmp_path / "clip"))
    assert fingerprint(loaded) == fingerprint(model) and not loaded.training
    assert loaded.config == model.config
    assert sorted(p.name for p in (tmp_path / "clip").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


def test_round_trip_with_vocabulary_in_fp16(
    config: Callable[..., ClipConfig], tmp_path: Path
) -> None:
    vocabulary = compact_vocabulary(CAPTIONS)
    (tmp_path / "words.json").write_text(json.dumps(vocabulary))
    text = {"context_length": 8, "width": 16, "heads": 2, "layers": 1}
    described = config("vit", vocabulary=tmp_path / "words.json", text_cfg=text)
    model = build_clip(ModelSpec(config=described))
    folder = save_clip(model, tmp_path / "clip", dtype="fp16")
    stored = load_file(folder / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    (tmp_path / "words.json").unlink()  # the folder is complete in itself
    loaded = load_clip(folder)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.tokenize(CAPTIONS), model.tokenize(CAPTIONS))
    expected = model.image.tower.proj.detach().half().float()  # pyright: ignore
    assert torch.equal(loaded.image.tower.proj, expected)  # pyright: ignore


@pytest.mark.parametrize("text", ["", "[1, 2", '{"a": 1}', '["a"]', "[1.5]", "[" * 99999])
def test_a_vocabulary_that_is_no_list_of_tokens_is_named(
    config: Callable[..., ClipConfig], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "words.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"words\.json: not a vocabulary: no (whole )?JSON"):
        config("vit", vocabulary=path).resolved()


def test_a_saved_folder_is_a_model_name(tiny: Callable[..., Clip], tmp_path: Path) -> None:
    folder = save_clip(tiny("vit", seed=4), tmp_path)
    built = build_clip(ModelSpec(name=str(folder)))
    assert fingerprint(built) == fingerprint(tiny("vit", seed=4))


def test_pool_positions_by_spec_are_saved(
    tiny: Callable[..., Clip], config: Callable[..., ClipConfig], tmp_path: Path
) -> None:
    folder = save_clip(tiny("resnet"), tmp_path / "grid")
    flat = build_clip(ModelSpec(name=str(folder), pool_pos="flat1d"))
    assert flat.config == config("resnet", pool_pos="flat1d")
    assert fingerprint(flat) == fingerprint(tiny("resnet"))
    assert load_clip(save_clip(flat, tmp_path / "flat")).config.pool_pos == "flat1d"


def test_open_clips_own_file_loads(
    tiny: Callable[..., Clip], config: Callable[..., ClipConfig], tmp_path: Path
) -> None:
    described = config("vit")
    torch.manual_seed(5)
    original = open_clip.model.CLIP(24, described.vision_cfg, described.text_cfg)  # pyright: ignore
    state = original.state_dict()
    torch.save(state, tmp_path / "old.pt")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "old.safetensors")
    for name in ("old.pt", "old.safetensors"):
        spec = ModelSpec(config=described, weights=str(tmp_path / name))
        built = build_clip(spec)
        assert torch.equal(built.text.text_projection, original.text_projection)
        assert torch.equal(built.image.tower.proj, original.visual.proj)  # pyright: ignore


def test_trunk_weights_of_timm(tiny: Callable[..., Clip], tmp_path: Path) -> None:
    import timm

    torch.manual_seed(7)
    trunk = timm.create_model("test_efficientnet")
    path = tmp_path / "trunk.safetensors"
    save_file(trunk.state_dict(), path)
    config = tiny("timm-cnn").config
    built = build_clip(ModelSpec(config=config, image_weights=path))
    assert torch.equal(built.image.tower.trunk.conv_stem.weight, trunk.conv_stem.weight)  # pyright: ignore


def as_before(folder: Path) -> Path:
    """`folder` as earlier versions wrote it, without hashes."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in ("files", "sha256")}))
    return folder


def test_folders_of_earlier_versions_are_read(tiny: Callable[..., Clip], tmp_path: Path) -> None:
    model = tiny("vit")
    assert fingerprint(load_clip(as_before(save_clip(model, tmp_path)))) == fingerprint(model)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_flipped_bit_is_noticed(tiny: Callable[..., Clip], tmp_path: Path, name: str) -> None:
    path = save_clip(tiny("vit"), tmp_path) / name
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 20):
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(data)
        if name == "model.json" and data[place : place + 1].isspace():
            continue  # spacing says nothing
        with pytest.raises(ValueError, match=str(path)):
            load_clip(tmp_path)


def test_what_lies_beside_a_model_is_compared(tiny: Callable[..., Clip], tmp_path: Path) -> None:
    (tmp_path / "heads.safetensors").write_bytes(b"heads")
    save_clip(tiny("vit"), tmp_path, beside=["heads.safetensors"])
    check_file(tmp_path, "heads.safetensors")
    (tmp_path / "heads.safetensors").write_bytes(b"leads")
    with pytest.raises(ValueError, match=r"heads\.safetensors: damaged"):
        check_file(tmp_path, "heads.safetensors")
    load_clip(tmp_path)  # its own files are whole


def test_misfits_are_named(tiny: Callable[..., Clip], tmp_path: Path) -> None:
    folder = as_before(save_clip(tiny("vit"), tmp_path / "clip"))
    weights = folder / "model.safetensors"
    state = load_file(weights)
    missing = {k: v for k, v in state.items() if k != "visual.proj"}
    faults = {
        "lacks key 'image.tower.proj'": missing,
        "unknown key 'image.tower.extra'": {**state, "visual.extra": torch.zeros(1)},
        r"'image.tower.proj' has shape \(3, 3\), the model wants \(32, 24\)": {
            **state,
            "visual.proj": torch.zeros(3, 3),
        },
    }
    for message, faulty in faults.items():
        save_file(faulty, weights)
        with pytest.raises(ValueError, match=message):
            load_clip(folder)
    weights.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="cannot be read"):
        load_clip(folder)
    weights.unlink()
    with pytest.raises(ValueError, match="does not exist"):
        load_clip(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "cliptex-clip-1"}', '{"format": "x"}'])
def test_broken_descriptions_are_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"model\.json does not exist"):
        load_clip(tmp_path)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json"):
        load_clip(tmp_path)


def test_names() -> None:
    vit = named_config("open_clip:ViT-B-16")
    assert vit.vision_cfg["patch_size"] == 16 and vit.embed_dim == 512
    lite = named_config("timm:tf_efficientnet_lite0")
    assert lite.mean == lite.std == (0.5, 0.5, 0.5)
    for wrong in ("open_clip:ViT-Z", "timm:nonsense"):
        with pytest.raises(ValueError, match=wrong):
            named_config(wrong)
    with pytest.raises(ValueError, match="no tag among"):
        build_clip(ModelSpec(name="open_clip:RN50", weights="no-such-tag"))


def test_bad_configurations(config: Callable[..., ClipConfig]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        ModelSpec()
    with pytest.raises(ValueError, match="widht"):
        build_clip(ModelSpec(config=config("vit", vision_cfg={"widht": 3})))
    with pytest.raises(ValueError, match="conv_stem"):
        build_clip(ModelSpec(config=config("resnet", conv_stem=True)))
    with pytest.raises(ValueError, match="vocab_size"):
        build_clip(ModelSpec(config=config("vit", vocabulary=(1, 2))))
    with pytest.raises(ValueError, match="patch_dropout"):
        build_clip(ModelSpec(config=config("vit", vision_cfg={"patch_dropout": 0.5})))
