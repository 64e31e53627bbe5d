"""The loop with image towers of every family, batch norm among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cliptex.models.clip import load_clip
from cliptex.training.loop import train

ALL = ("segmentation", "depth", "normals")


@pytest.mark.parametrize("name", ["corenet", "resnet", "timm-cnn", "timm-convnext", "timm-vit"])
def test_train__every_family(name: str, configure, tower, tmp_path: Path) -> None:
    sizes = ((64, 64), (96, 64))
    config = configure(*ALL, model=tower(name), resolution=sizes, batch_size=4, steps=3)
    final = train(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["loss"] > 0 and row["mfu"] > 0 for row in rows)
    embedded = load_clip(final).encode_image(torch.zeros(1, 3, 64, 64))
    assert embedded.shape == (1, 16) and embedded.isfinite().all()
