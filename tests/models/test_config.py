"""One name, one model: timm's spellings mean what ours do, and random weights are said."""

from __future__ import annotations

import subprocess
import sys

import pytest
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from cliptex.models import clip as clip_module
from cliptex.models.clip import build_clip, load_clip
from cliptex.models.config import OPENAI_MEAN, OPENAI_STD, ClipConfig, ModelSpec, split_name
from cliptex.models.sources import named_config

VIT = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
TEXT = {"context_length": 8, "width": 16, "heads": 2, "layers": 1}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("open_clip:RN50", ("open_clip:RN50", None)),
        ("open_clip:RN50/openai", ("open_clip:RN50", "openai")),
        ("open_clip:ViT-B-16/a.b/c.pt", ("open_clip:ViT-B-16", "a.b/c.pt")),
        ("timm:resnet18", ("timm:resnet18", None)),
        ("timm:resnet18/a1_in1k", ("timm:resnet18", "a1_in1k")),
        ("timm:resnet18.a1_in1k", ("timm:resnet18", "a1_in1k")),
        ("timm:resnet18//data/a.pt", ("timm:resnet18", "/data/a.pt")),
        ("timm:timm/resnet18.a1_in1k", ("timm:resnet18", "a1_in1k")),
        ("timm:hf-hub:timm/resnet18.a1_in1k", ("timm:resnet18", "a1_in1k")),
        ("runs/a.b/final", ("runs/a.b/final", None)),
        ("hf-hub:timm/resnet18.a1_in1k", ("hf-hub:timm/resnet18.a1_in1k", None)),
    ],
)
def test_split_name(text: str, parts: tuple[str, str | None]) -> None:
    assert split_name(text) == parts


def test_spec__takes_weights_with_the_name() -> None:
    assert ModelSpec(name="timm:resnet18.a1_in1k") == ModelSpec(
        name="timm:resnet18", weights="a1_in1k"
    )
    assert ModelSpec(name="open_clip:RN50", weights="a/b.pt").weights == "a/b.pt"


@pytest.mark.parametrize("name", ["timm:resnet18/nope", "timm:resnet18.nope"])
def test_a_tag_that_does_not_exist__is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(ValueError, match=r"'nope' of timm:resnet18: .* no tag among \['a1_in1k'"):
        load_clip(name)


def test_a_tag_in_the_name_beside_weights__is_no_name() -> None:
    with pytest.raises(ValueError, match=r"knows no such model.*timm:NAME/TAG"):
        build_clip(ModelSpec(name="timm:resnet18.a1_in1k", weights="a2_in1k"))
    with pytest.raises(ValueError, match="'nope' of open_clip:RN50"):
        named_config("open_clip:RN50", "nope")


@pytest.mark.parametrize("name", ["timm:test_resnet.r160_in1k", "open_clip:RN50/openai"])
def test_weights_that_cannot_be_downloaded__are_named(name: str) -> None:
    """Tests run without a network and with an empty cache."""
    with pytest.raises(ValueError, match="could not be downloaded .*HF_HOME") as error:
        load_clip(name)
    assert str(error.value).startswith("{}/{}: ".format(*split_name(name)))


def test_a_text_tower_of_the_hub_that_is_not_there__is_named() -> None:
    """Of SigLIP the tokenizer, of open_clip's RoBERTa the tower's description, too."""
    text = {**TEXT, "hf_tokenizer_name": "org/absent"}
    config = ClipConfig(embed_dim=24, vision_cfg=VIT, text_cfg=text)
    with pytest.raises(ValueError, match="tokenizer org/absent could not be downloaded .*HF_HOME"):
        build_clip(ModelSpec(config=config))
    text = {"hf_model_name": "org/absent", "hf_tokenizer_name": "org/absent", "proj_type": "mlp"}
    config = ClipConfig(embed_dim=24, vision_cfg=VIT, text_cfg=text)
    with pytest.raises(
        ValueError, match="the text tower org/absent could not be downloaded .*HF_HOME"
    ):
        build_clip(ModelSpec(config=config))


def test_random_weights_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(clip_module, "say", said.append)
    load_clip("playroom")
    assert said == []
    load_clip("timm:test_resnet")
    assert said == ["timm:test_resnet: random weights (no tag)"]


def test_descriptions_need_no_torch() -> None:
    """A configuration of a run holds them, and `--help` shows it."""
    unwanted = "{'torch', 'open_clip', 'timm'} & {*sys.modules}"
    code = f"import sys, cliptex.models.config; assert not {unwanted}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_openai_colours() -> None:
    assert (OPENAI_MEAN, OPENAI_STD) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
