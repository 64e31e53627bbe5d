"""Exports load in their own libraries and give the same embeddings; the rest is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from cliptex.files import sha256_file
from cliptex.models.clip import Clip, build_clip, load_clip, save_clip
from cliptex.models.cliptex import build_cliptex
from cliptex.models.config import ClipConfig, DenseConfig, ModelSpec
from cliptex.models.export import export_clip
from cliptex.models.tokenizer import compact_vocabulary

TEXTS = ["a red ball", "two chairs and a lamp"]


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


def run_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Execute the card's code as it stands; what it defined."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code[1], names)
    return names


@pytest.mark.parametrize("family", ["vit", "vit-avg", "resnet", "timm-cnn", "timm-vit"])
@torch.no_grad()
def test_open_clip__same_embeddings_to_the_bit(
    saved: Callable[..., tuple[Clip, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
) -> None:
    clip, folder = saved(family, quick_gelu=family == "vit", mean=(0.4, 0.5, 0.6))
    done = export_clip(str(folder), "open-clip", tmp_path / "out")
    assert done.difference == 0 and done.notes == ()
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{done.folder}")
    model.eval()
    side = clip.image.image_size
    images = rand(2, 3, side, side)
    normal = (images - clip.image.mean) / clip.image.std
    assert torch.equal(model.encode_image(normal, normalize=True), clip.encode_image(images))
    tokens = open_clip.get_tokenizer(f"local-dir:{done.folder}")(TEXTS)
    assert torch.equal(tokens, clip.tokenize(TEXTS))
    assert torch.equal(model.encode_text(tokens, normalize=True), clip.encode_text(tokens))
    assert tuple(preprocess.transforms[-1].mean) == (0.4, 0.5, 0.6)  # type: ignore[union-attr]
    assert run_card(done.folder, monkeypatch)["embedding"].shape == (1, 24)
    again = load_clip(done.folder)  # and back
    assert torch.equal(again.encode_image(images), clip.encode_image(images))


@pytest.mark.parametrize("family", ["vit", "timm-cnn", "timm-vit"])
@torch.no_grad()
def test_timm__embeds_the_same(
    saved: Callable[..., tuple[Clip, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
) -> None:
    clip, folder = saved(family, quick_gelu=family == "vit")
    done = export_clip(str(folder), "timm", tmp_path / "out")
    assert done.difference < 1e-5
    content = json.loads((done.folder / "config.json").read_text())
    overlay = {"file": str(done.folder / "model.safetensors"), "num_classes": 24}
    model = timm.create_model(
        content["architecture"],
        pretrained=True,
        num_classes=24,
        pretrained_cfg_overlay=overlay,
        **content["model_args"],
    ).eval()
    side = clip.image.image_size
    images = rand(2, 3, side, side)
    embedding = model((images - clip.image.mean) / clip.image.std)
    torch.testing.assert_close(embedding, clip.image(images).embedding, atol=1e-5, rtol=1e-4)
    names = run_card(done.folder, monkeypatch)
    assert names["embedding"].shape == (1, 24)
    assert torch.equal(names["model"].get_classifier().weight, model.get_classifier().weight)


@pytest.mark.slow
def test_timm__openais_resnet(tmp_path: Path) -> None:
    spec = ModelSpec(name="open_clip:RN50", seed=2)
    folder = save_clip(build_clip(spec), tmp_path / "rn50")
    done = export_clip(str(folder), "timm", tmp_path / "out")
    assert done.difference < 1e-5
    assert json.loads((done.folder / "config.json").read_text())["architecture"] == "resnet50_clip"


@pytest.mark.parametrize("quick", [False, True])
@torch.no_grad()
def test_hugging_face__embeds_the_same(
    saved: Callable[..., tuple[Clip, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick: bool,
) -> None:
    transformers = pytest.importorskip("transformers")
    clip, folder = saved("vit", quick_gelu=quick)
    done = export_clip(str(folder), "hf", tmp_path / "out")
    assert done.difference < 1e-5
    model, info = transformers.CLIPModel.from_pretrained(done.folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(done.folder)
    found = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    ours = clip.tokenize(TEXTS)
    ends = ours.argmax(1)
    for row, (end, ids) in enumerate(zip(ends, ours, strict=True)):
        assert torch.equal(found[row, : end + 1], ids[: end + 1])  # they pad with another id
    text = model.text_projection(model.text_model(input_ids=found).pooler_output)
    assert (F.normalize(text, dim=-1) - clip.encode_text(ours)).abs().max() < 1e-5
    assert run_card(done.folder, monkeypatch)["embedding"].shape == (1, 24)
    again = load_clip(done.folder)  # and back
    images = rand(2, 3, 32, 32)
    assert torch.equal(again.encode_image(images), clip.encode_image(images))
    assert torch.equal(again.encode_text(ours), clip.encode_text(ours))
    assert again.config.quick_gelu is quick


SLOW = pytest.mark.slow  # torch's exporter takes seconds for the smallest model


@pytest.mark.parametrize(
    "family",
    ["resnet", *(pytest.param(x, marks=SLOW) for x in ("vit-stem", "timm-cnn", "timm-vit"))],
)
def test_onnx__gives_embedding_and_map(
    saved: Callable[..., tuple[Clip, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    clip, folder = saved(family)
    cell, side = clip.image.stride, clip.image.image_size
    size = (side + cell, side)
    done = export_clip(str(folder), "onnx", tmp_path / "out", size=size)
    assert done.difference < 1e-4
    session = onnxruntime.InferenceSession(done.folder / "model.onnx")
    for batch in (
        1,
        4,
    ):  # neither the batch that it was traced with nor the one it was checked with
        images = rand(batch, 3, *size)
        embedding, dense = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            assert np.abs(embedding - clip.encode_image(images).numpy()).max() < 1e-4
            expected = clip.image(images).maps[cell].numpy()
        assert np.abs(dense - expected).max() / max(1, np.abs(expected).max()) < 1e-4
    assert run_card(done.folder, monkeypatch)["embedding"].shape == (1, 24)


@pytest.fixture
def run(tiny: Callable[..., Clip], tmp_path: Path) -> tuple[Any, Path]:
    """A model with heads, and RUN/checkpoints/final as a training run leaves it."""
    config = DenseConfig(width=32, pools=(1, 2), head="heavy")
    model = build_cliptex(tiny("vit"), {"depth": 1, "segmentation": 7}, config, seed=3).eval()
    final = save_clip(model.clip, tmp_path / "run" / "checkpoints" / "final")
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("clip.")}
    save_file(state, final / "heads.safetensors")
    described = {"dense": config.model_dump(mode="json"), "steps": 3}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(described))
    return model, final


def test_onnx__keeps_heads(run: tuple[Any, Path], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, final = run
    done = export_clip(str(final), "onnx", tmp_path / "out", heads=True, size=(48, 40))
    session = onnxruntime.InferenceSession(done.folder / "model.onnx")
    assert [o.name for o in session.get_outputs()] == [
        "embedding",
        "dense",
        "depth",
        "segmentation",
    ]
    images = rand(2, 3, 48, 40)
    found = session.run(["depth", "segmentation"], {"images": images.numpy()})
    with torch.no_grad():
        expected = model.predict(images)
    for task, values in zip(("depth", "segmentation"), found, strict=True):
        assert values.shape == expected[task].shape
        assert np.abs(values - expected[task].numpy()).max() < 1e-4


def test_heads_are_asked_for_where_there_are_some(run: tuple[Any, Path], tmp_path: Path) -> None:
    _, final = run
    with pytest.raises(ValueError, match="hf cannot hold `heads`"):
        export_clip(str(final), "hf", tmp_path / "out", heads=True)
    (tmp_path / "run" / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"config\.yaml does not exist"):
        export_clip(str(final), "onnx", tmp_path / "out", heads=True)
    (final / "heads.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no heads\.safetensors"):
        export_clip(str(final), "onnx", tmp_path / "out", heads=True)
    assert export_clip(str(final), "open-clip", tmp_path / "out").difference == 0


@pytest.mark.parametrize(
    ("family", "target", "message"),
    [
        ("vit-stem", "open-clip", "open_clip cannot hold a convolutional stem"),
        ("vit-stem", "hf", "CLIPModel cannot hold a convolutional stem"),
        ("vit-stem", "timm", "timm cannot hold a convolutional stem"),
        ("resnet", "hf", "CLIPModel cannot hold an image tower of type ModifiedResNet"),
        ("resnet", "timm", "timm has no CLIP ResNet of layers"),
        ("timm-cnn", "hf", "CLIPModel cannot hold an image tower of type TimmModel"),
        ("vit-avg", "hf", "vision_cfg of CLIPModel cannot say pool_type='avg'"),
        ("vit-attn", "timm", "vision_cfg of timm cannot say attentional_pool=True"),
    ],
)
def test_what_a_format_cannot_hold(
    saved: Callable[..., tuple[Clip, Path]], tmp_path: Path, family: str, target: Any, message: str
) -> None:
    _, folder = saved(family)
    with pytest.raises(ValueError, match=message):
        export_clip(str(folder), target, tmp_path / "out")


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """A tiny model of the authors' library, saved."""
    sizes = {"layers": 1, "heads": 1, "hidden": 64}
    config = ClipConfig(
        family="corenet",
        embed_dim=8,
        vision_cfg={**sizes, "width": 64, "positions": 4},
        text_cfg={**sizes, "width": 64, "positions": 77},
    )
    return save_clip(build_clip(ModelSpec(config=config)), tmp_path / "corenet")


@pytest.mark.parametrize("target", ["open-clip", "hf", "timm"])
def test_authors_towers_stay_here(authors: Path, tmp_path: Path, target: Any) -> None:
    with pytest.raises(ValueError, match="cannot hold a CoreNet tower"):
        export_clip(str(authors), target, tmp_path / "out")


@pytest.mark.slow
def test_authors_towers_to_onnx(authors: Path, tmp_path: Path) -> None:
    assert export_clip(str(authors), "onnx", tmp_path / "out", size=(64, 32)).difference < 1e-4


@torch.no_grad()
def test_a_cut_vocabulary_lies_beside_the_model(
    saved: Callable[..., tuple[Clip, Path]], tmp_path: Path
) -> None:
    vocabulary = tuple(compact_vocabulary(TEXTS))
    text = {"context_length": 8, "width": 16, "heads": 2, "layers": 1}
    clip, folder = saved("vit", vocabulary=vocabulary, text_cfg=text)
    done = export_clip(str(folder), "open-clip", tmp_path / "out")
    assert json.loads((done.folder / "vocabulary.json").read_text()) == list(vocabulary)
    assert "CompactTokenizer" in done.notes[0]
    assert done.notes[0] in (done.folder / "README.md").read_text()
    model = open_clip.create_model(f"local-dir:{done.folder}").eval()
    tokens = clip.tokenize(TEXTS)
    assert torch.equal(model.encode_text(tokens, normalize=True), clip.encode_text(tokens))


def test_cards_and_faults(saved: Callable[..., tuple[Clip, Path]], tmp_path: Path) -> None:
    _, folder = saved("vit")
    done = export_clip(str(folder), "open-clip", tmp_path / "out")
    card = (done.folder / "README.md").read_text()
    assert sha256_file(folder / "model.safetensors") in card and "0.481455" in card
    with pytest.raises(ValueError, match="not empty"):
        export_clip(str(folder), "open-clip", tmp_path / "out")
    with pytest.raises(ValueError, match="`size` applies only to ONNX"):
        export_clip(str(folder), "timm", tmp_path / "new", size=(32, 32))
    with pytest.raises(ValueError, match="does not exist"):
        export_clip(str(tmp_path / "nowhere"), "timm", tmp_path / "new")


def test_a_wrong_export_is_not_passed(
    saved: Callable[..., tuple[Clip, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = saved("vit")
    monkeypatch.setattr("cliptex.models.export.run.check_open_clip", lambda *_: 1e-7)
    with pytest.raises(ValueError, match="would differ from .* was not written"):
        export_clip(str(folder), "open-clip", tmp_path / "out")
