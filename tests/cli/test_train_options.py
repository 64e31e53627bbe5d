"""Options of a training that are off by default, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.cli import main
from cliptex.models.clip import load_clip, random_clip, save_clip
from cliptex.models.config import ClipConfig
from cliptex.shards.write import ShardWriter
from cliptex.training.config import load_config

TEXT = {"context_length": 8, "width": 16, "heads": 1, "layers": 1}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}


def test_clip_ft_of_a_dilated_resnet(tmp_path: Path, capsys) -> None:
    with ShardWriter(tmp_path / "web", prefix="web", samples_per_shard=8) as writer:
        for number in range(8):
            path = tmp_path / "one.png"
            Image.fromarray(np.full((40, 40, 3), 30 * number, np.uint8)).save(path)
            writer.add(f"{number:03d}", path.read_bytes(), "png", "grey")
    config = ClipConfig(embed_dim=8, vision_cfg=RESNET, text_cfg=TEXT)
    save_clip(random_clip(config, 0), tmp_path / "start")
    out, recipe = tmp_path / "run", ["paper", "--tower", "resnet50"]
    options = ["--data", str(tmp_path / "web"), "--start-from", str(tmp_path / "start")]
    options += ["--output-stride", "16", "--around.base", "64", "--around.low", "64"]
    options += ["--around.high", "64", "--around.count", "1", "--batch-size", "3"]
    options += ["--batch-per", "rank", "--range-augment", "40", "20", "--contrast", "sigmoid"]
    options += ["--sigmoid-bias", "-4", "--steps", "2", "--warmup-steps", "0", "--workers", "0"]
    options += ["--precision", "fp32", "--no-tensorboard", "--log-every", "1", "--out", str(out)]
    assert main(["train", *recipe, *options, "--dry-run"]) == 0
    assert "output_stride: 16" in capsys.readouterr().out
    assert main(["train", *recipe, *options]) == 0, capsys.readouterr().err
    saved = load_config(out / "config.yaml")
    assert (saved.batch_size, saved.batch_per, saved.range_augment) == (3, "global", (40, 20))
    assert saved.resolution == ((64, 64),) and saved.model.output_stride == 16
    row = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert row["loss"] == pytest.approx(row["loss_clip"] + row["loss_range_augment"], rel=1e-5)
    clip = load_clip(out / "checkpoints" / "final")
    assert clip.image.stride == 16 and clip.logit_bias is not None
