"""`cliptex probe` as it is typed, on a world of a few pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from cliptex.cli.app import main
from cliptex.cli.probing import checkpoint_of


@pytest.fixture
def voc(tmp_path):
    """Six coloured pictures in VOC's layout, one of them not square."""
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    for i in range(6):
        ids = rng.integers(0, 3, (2, 3 if i else 2)).astype(np.uint8).repeat(32, 0).repeat(32, 1)
        Image.fromarray(palette[ids]).save(root / f"JPEGImages/{i}.jpg")
        Image.fromarray(ids).save(root / f"SegmentationClass/{i}.png")
    (root / "labels.txt").write_text("background\nred\ngreen\n")
    (root / "ImageSets/Segmentation/train.txt").write_text("0\n1\n2\n3\n")
    (root / "ImageSets/Segmentation/test.txt").write_text("4\n5\n")
    return root


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["probe", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def common(voc, out):
    return ["--model", "playroom", "--dataset", "voc", "--root", str(voc), "--out", str(out)]


SMALL = ("--resolution", "64", "--epochs", "2", "--batch-size", "2")


def test_paper__heads_and_seeds_give_a_row_each(voc, tmp_path, capsys):
    out, state = tmp_path / "r.jsonl", tmp_path / "state"
    arguments = [*common(voc, out), "--recipe", "paper", "--probe", "linear", "pspnet"]
    arguments += ["--seeds", "0", "1", "--warmup-steps", "1", *SMALL, "--name", "mine"]
    code, text, err = run(capsys, *arguments, "--state", str(state))
    assert code == 0, err
    rows = [row for row in rows_of(out) if row["metric"] == "miou"]
    assert [(row["probe"], row["seed"]) for row in rows] == [
        ("linear", 0),
        ("linear", 1),
        ("pspnet", 0),
        ("pspnet", 1),
    ]
    assert {row["model"] for row in rows} == {"mine"}
    assert rows[0]["protocol"]["schedule"]["lr"] == 3e-5
    assert (
        "segmentation pspnet miou on voc, seed 1" in text and (state / "all.safetensors").exists()
    )


def test_fast__is_the_default(voc, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    code, _, err = run(capsys, *common(voc, out), "--lr", "0.1", "--resolution", "64")
    assert code == 0, err
    assert rows_of(out)[0]["protocol"]["standardise"] is True


def test_dry_run__tells_the_cost_and_trains_nothing(voc, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    arguments = [*common(voc, out), "--recipe", "paper", "--dry-run", "--probe", "deeplabv3"]
    code, text, err = run(capsys, *arguments, "--resolution", "64")
    assert code == 0, err
    assert "4 x 50 + 2" in text and "GPU-hours" in text and not out.exists()


def test_features__need_no_augmentation_and_fit_the_budget(voc, tmp_path, capsys):
    out, folder = tmp_path / "r.jsonl", tmp_path / "features"
    arguments = [*common(voc, out), "--recipe", "paper", "--warmup-steps", "1", *SMALL]
    arguments += ["--features", str(folder)]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "--no-augmentation" in err
    code, _, err = run(capsys, *arguments, "--no-augmentation", "--features-gib", "0")
    assert code == 2 and "--features-gib" in err
    code, _, err = run(capsys, *arguments, "--no-augmentation")
    assert code == 0, err
    protocol = rows_of(out)[0]["protocol"]
    assert protocol["features"] == "stored as float16, no augmentation"
    assert 0 < protocol["storage_error"] < 1e-3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "playroom"], "--out"),
        (["--model", "playroom", "--out", "x"], "--dataset and --root"),
    ],
)
def test_faults(arguments, said, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and said in err


def test_faults__late_ones_name_the_remedy(voc, tmp_path, capsys):
    arguments = [*common(voc, tmp_path / "r.jsonl"), "--probe", "pspnet"]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "--recipe paper" in err
    code, _, err = run(capsys, *arguments, "--recipe", "paper", *SMALL)
    assert code == 2 and "--warmup-steps" in err


def test_checkpoint__random_weights_are_marked(tmp_path):
    assert checkpoint_of("open_clip:RN50") == checkpoint_of("timm:vit_tiny") == "random"
    assert checkpoint_of("corenet:ViT-B-16") == "random"
    assert checkpoint_of("open_clip:RN50/openai") == checkpoint_of("playroom") == ""
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert len(checkpoint_of(str(tmp_path))) == 64
