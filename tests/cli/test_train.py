from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex import recipes
from cliptex.cli import main, train
from cliptex.models.config import ClipConfig, ModelSpec
from cliptex.shards.write import ShardWriter
from cliptex.training.config import TrainConfig, dump_config


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A configuration file for eight grey images."""
    with ShardWriter(tmp_path / "data", prefix="web", samples_per_shard=8) as writer:
        for number in range(8):
            path = tmp_path / "image.png"
            Image.fromarray(np.full((40, 40, 3), 20 * number, np.uint8)).save(path)
            writer.add(f"{number:03d}", path.read_bytes(), "png", "a grey square")
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "width": 16, "heads": 1, "layers": 1}
    spec = ModelSpec(config=ClipConfig(embed_dim=8, vision_cfg=vision, text_cfg=text))
    config = TrainConfig(
        model=spec,
        data=tmp_path / "data",
        steps=3,
        warmup_steps=1,
        batch_size=4,
        resolution=((32, 32),),
        workers=0,
        tensorboard=False,
    )
    dump_config(config, tmp_path / "given.yaml")
    return tmp_path / "given.yaml"


def test_dry_run_then_run(given: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert main(["train", str(given), "--out", str(out), "--dry-run", "--batch-size", "2"]) == 0
    printed = capsys.readouterr().out
    assert "batch_size: 2" in printed and "memory in GB" in printed
    assert printed.splitlines()[-1] == str(out / "first-batch.html")
    assert (out / "first-batch.html").is_file() and not (out / "checkpoints").exists()
    assert main(["train", str(given), "--out", str(out), "--batch-size", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "checkpoints" / "final")


def test_help_of_a_recipe__once_each_with_its_own_values(capsys) -> None:
    assert main(["train", "paper", "--help-all"]) == 0
    printed = capsys.readouterr().out
    assert "The paper's fine-tuning" in printed
    for option in ("--out", "--dry-run", "--labels", "--tasks", "--batch-size", "--pool-pos"):
        assert len(re.findall(rf"^  {option}\b", printed, re.M)) == 1, option
    assert "--no-dry-run" not in printed
    assert re.search(r"--epochs [^(]*\(default: 30.0\)", printed)


def test_help_of_a_file__has_its_values(given: Path, capsys) -> None:
    assert main(["train", str(given), "--help-all"]) == 0
    assert re.search(r"--steps [^(]*\(default: 3\)", capsys.readouterr().out)


def test_pool_pos__reaches_the_model(given: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "run")
    dry = ["train", str(given), "--out", out, "--dry-run", "--pool-pos"]
    assert main([*dry, "grid2d"]) == 0
    assert "pool_pos: grid2d" in capsys.readouterr().out
    assert main([*dry, "flat1d"]) == 2  # a ViT has no attention pooling
    assert "applies only to ResNets" in capsys.readouterr().err


def test_keys_of_the_engine(given: Path, tmp_path: Path) -> None:
    arguments = ["--accumulate", "2", "--ema", "0.1", "--activation-checkpointing"]
    arguments += ["--precision", "fp16", "--parallel", "fsdp2"]
    out = tmp_path / "run"
    assert main(["train", str(given), "--out", str(out), *arguments]) == 0
    assert (out / "checkpoints" / "final-ema" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("old", "tower"),
    [
        ("clip_ft_vit_b16", "vit-b16"),
        ("cliptex_resnet50", "resnet50"),
        ("clip_ft_vit_h16", "vit-h16"),
    ],
)
def test_former_names_of_the_papers_recipes_work_and_say_so(old, tower, tmp_path, capsys) -> None:
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "run"), "--start-from", "playroom"]
    words += ["--labels", "l", "--tasks", "depth", "dpt"] if old.startswith("cliptex") else []
    assert main(["train", old, *words]) == 2
    notice, error = capsys.readouterr().err.splitlines()
    assert f"{old} is called `paper --tower {tower}` now" in notice
    assert "no *.tar in this folder" in error  # of what comes next
    configuration, _ = train.configuration(*_split(train.with_new_names([old, *words])))
    assert configuration == recipes.paper(
        tower,
        tmp_path,
        Path("l"),
        tasks={"depth": "dpt"} if old.startswith("cliptex") else {},
        start_from="playroom",
    )


def _split(words: list[str]) -> tuple[str, list[str]]:
    return words[0], words[1:]


def test_former_names_of_cliptex_need_tasks_as_before(tmp_path: Path, capsys) -> None:
    assert main(["train", "cliptex_vit_b16", "--data", "d", "--labels", "l", "--out", "o"]) == 2
    assert "cliptex_vit_b16 needs --tasks" in capsys.readouterr().err.splitlines()[-1]


def test_weights_of_tasks_that_are_added_to_a_file(given: Path, tmp_path: Path) -> None:
    words = ["--out", "o", "--labels", "l", "--tasks", "depth", "dpt", "--loss-weights.depth", "3"]
    configuration, _ = train.configuration(str(given), words)
    assert configuration.loss_weights == {"clip": 1.0, "depth": 3.0}
    without, _ = train.configuration(str(given), words[:2])
    assert without.loss_weights == {"clip": 1.0}


def test_a_recipe_that_is_misspelt(capsys) -> None:
    assert main(["train", "papr", "--out", "x"]) == 2
    assert "recipe 'papr' is unknown (did you mean paper?)" in capsys.readouterr().err
