"""A fourth task from its expert's labels to its head, as CONTRIBUTING.md describes adding one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from cliptex.cli import main
from cliptex.experts.edges import SobelEdges
from cliptex.labels.reader import LabelReader
from cliptex.models.clip import random_clip, save_clip
from cliptex.models.config import ClipConfig
from cliptex.shards.write import ShardWriter
from cliptex.training.config import load_config


def test_sobel__a_step_is_an_edge() -> None:
    image = np.zeros((8, 10, 3), np.uint8)
    image[:, 5:] = 255
    (found,) = SobelEdges().predict([image])
    assert found.label.shape == (8, 10) and found.label.dtype == np.float32
    # across a full step the horizontal kernel sums up to 4 * 255
    assert found.label[:, 4:6] == pytest.approx(2**-0.5, abs=1e-6)
    assert not found.label[:, :4].any() and not found.label[:, 6:].any()


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A shard of four pictures of squares, and a tiny CLIP."""
    with ShardWriter(tmp_path / "web", prefix="web", samples_per_shard=4) as writer:
        for number in range(4):
            image = np.full((40, 40, 3), 40, np.uint8)
            image[8 : 20 + 4 * number, 8:30] = 220
            Image.fromarray(image).save(tmp_path / "one.png")
            writer.add(f"{number:03d}", (tmp_path / "one.png").read_bytes(), "png", "a square")
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "width": 16, "heads": 1, "layers": 1}
    save_clip(random_clip(ClipConfig(embed_dim=8, vision_cfg=vision, text_cfg=text), 0), tmp_path)
    return tmp_path


def test_label_and_train(world: Path) -> None:
    label = ["--data", str(world / "web"), "--out", str(world / "labels")]
    label += ["--expert", "sobel-edges"]
    assert main(["label", "run", *label]) == 0
    reader = LabelReader(world / "labels" / "sobel-edges")
    assert reader.kind.to_json() == {"kind": "scalar-field", "unit": "edge strength"}
    options = ["--labels", str(world / "labels"), "--tasks", "edges", "sobel-edges"]
    options += [
        "--start-from",
        str(world),
        "--batch-size",
        "1",
        "--steps",
        "3",
        "--warmup-steps",
        "1",
    ]
    options += ["--around.base", "64", "--around.low", "32", "--around.high", "64"]
    options += ["--around.count", "2", "--dense.width", "16", "--loss-weights.edges", "0.5"]
    options += ["--depth-norm", "none", "--workers", "0", "--no-tensorboard", "--log-every", "1"]
    run = world / "run"
    arguments = [
        "paper",
        "--tower",
        "vit-b16",
        "--data",
        str(world / "web"),
        "--out",
        str(run),
        *options,
    ]
    assert main(["train", *arguments]) == 0
    config = load_config(run / "config.yaml")
    assert config.resolution == ((64, 64), (32, 32)) and config.loss_weights["edges"] == 0.5
    row = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < row["loss_edges"] < 1
    heads = load_file(run / "checkpoints" / "final" / "heads.safetensors")
    assert heads["heads.edges.weight"].shape == (1, 16, 1, 1)
