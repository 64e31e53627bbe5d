"""What rows say of weights, tower by tower."""

import pytest

from cliptex.cli.app import main
from cliptex.cli.rows import check_text, checkpoint_of, random_towers
from cliptex.files import sha256_file
from cliptex.models.clip import Clip, load_clip, save_clip
from cliptex.models.encoder import fingerprint


@pytest.fixture(scope="module")
def playroom() -> Clip:
    return load_clip("playroom")


@pytest.mark.parametrize(
    ("model", "towers"),
    [
        ("open_clip:RN50", {"image", "text"}),
        ("open_clip:RN50/openai", set()),
        ("timm:vit_tiny_patch16_224", {"image", "text"}),
        ("timm:vit_tiny_patch16_224/augreg_in21k", {"text"}),
        ("timm:vit_tiny_patch16_224.augreg_in21k", {"text"}),
        ("corenet:ViT-B-16", {"image", "text"}),
        ("hf-hub:ORG/NAME", set()),
        ("playroom", set()),
    ],
)
def test_random_towers__by_name(model, towers):
    assert random_towers(model) == towers


def test_random_towers__a_file_of_the_authors_is_trained(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"")
    assert random_towers(f"corenet:{tmp_path / 'a.pt'}") == set()


def test_checkpoint__file_random_or_parameters(playroom, tmp_path):
    folder = save_clip(playroom, tmp_path / "saved")
    assert checkpoint_of(str(folder), playroom) == sha256_file(folder / "model.safetensors")
    assert len(checkpoint_of("playroom", playroom)) == 64
    assert checkpoint_of("open_clip:RN50", playroom) == "random"
    named = checkpoint_of("hf-hub:ORG/NAME", playroom)
    assert named == fingerprint(playroom) == checkpoint_of("timm:NAME/TAG", playroom)
    assert named != checkpoint_of("playroom", playroom)


def test_check_text__a_random_text_tower_under_trained_pictures_is_refused(capsys, tmp_path):
    for model in ("open_clip:RN50", "open_clip:RN50/openai", "timm:vit_tiny", "playroom"):
        check_text(model)
    arguments = ["--model", "timm:vit_tiny_patch16_224/augreg_in21k", "--dataset", "folder"]
    code = main(["zeroshot", *arguments, "--root", str(tmp_path), "--out", str(tmp_path / "r")])
    err = capsys.readouterr().err
    assert code == 2 and "text tower would be random" in err and "timm:vit_tiny_patch16_224 " in err
