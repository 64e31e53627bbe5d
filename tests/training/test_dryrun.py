from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.training.dryrun import PAGE, draw_target, dry_run
from cliptex.training.setup import prepare

ALL = ("segmentation", "depth", "normals")


def test_the_summary_and_the_page(configure, tmp_path: Path) -> None:
    config = configure(*ALL, resolution=((32, 32), (40, 24)), flip=0.0)
    text, page = dry_run(config, tmp_path)
    assert page == tmp_path / PAGE
    assert not (tmp_path / "checkpoints").exists()
    for part in ("batch_size: 8", "clip.image", "heads.depth", "6 steps", "TFLOP", "fsdp2"):
        assert part in text
    run = prepare(config)
    total = sum(p.numel() for p in run.model.parameters())
    assert f"{total / 1e6:.3f} M" in text
    batch = run.dataset.batch(run.sampler, 0)
    content = page.read_text()
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r"data:image/png;base64,([^\"]+)", content)
    ]
    present = [int(batch.targets[task].present.sum()) for task in ALL]
    assert len(pictures) == len(batch.captions) + sum(present)
    assert np.array_equal(pictures[0], batch.images[0].permute(1, 2, 0).numpy())
    assert all(caption in content for caption in batch.captions)
    assert content.count("no label for") == 3 * len(batch.captions) - sum(present)


def test_labels_lie_over_their_images(configure, tmp_path: Path) -> None:
    run = prepare(configure(*ALL, flip=1.0))
    batch = run.dataset.batch(run.sampler, 0)
    row = int(batch.targets["depth"].present.nonzero()[0])
    square = batch.targets["segmentation"].target[row].numpy() > 0
    for task in ALL:
        drawn = draw_target(batch.targets[task], row, run.dataset.labels[task].kind)
        assert drawn.shape == (32, 32, 3) and drawn.dtype == np.uint8
        inside, outside = drawn[square].mean(0), drawn[~square].mean(0)
        assert np.abs(inside - outside).max() > 20, task
    invalid = batch.targets["depth"].valid[row]
    assert invalid.all()


def test_a_dry_run_refuses_what_training_refuses(configure, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="warm-up"):
        dry_run(configure(warmup_steps=6), tmp_path)
    assert not (tmp_path / PAGE).exists()
