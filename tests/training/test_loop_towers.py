"""The loop with image towers of every family, batch norm among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cliptex.models.clip import load_clip
from cliptex.models.sources import named_config
from cliptex.training.distributed import World
from cliptex.training.loop import train
from cliptex.training.network import FlopCount
from cliptex.training.setup import prepare

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


def test_more_ranks_than_samples_are_refused_at_once(configure) -> None:
    config = configure(resolution=((32, 32), (64, 64)))  # 8 samples, or 2
    prepare(config, World(size=1))
    with pytest.raises(ValueError, match="`batch_size`: 8 .* of 2 at 64 x 64 .* for 3 ranks"):
        prepare(config, World(size=3))


def test_sizes_that_the_tower_cannot_take_are_refused_at_once(configure, tmp_path: Path) -> None:
    config = configure(resolution=((32, 32), (36, 32)))
    with pytest.raises(ValueError, match="`resolution`: .* 36 x 32 pixels.* multiples of 8"):
        train(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_swin_takes_other_sizes_than_its_own(configure) -> None:
    config = named_config("timm:swin_tiny_patch4_window7_224")
    FlopCount(config, configure().dense, {}).check([(224, 224), (512, 448)])
