"""A tiny set of image-text shards whose images encode their own coordinates."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter


@pytest.fixture
def shards(tmp_path: Path) -> ImageTextShards:
    """Two shards of three 24x16 images, keys 00000 to 00005."""
    with ShardWriter(tmp_path / "data", prefix="tiny", samples_per_shard=3) as writer:
        for number in range(6):
            pixels = np.zeros((16, 24, 3), np.uint8)
            pixels[:, :, 0], pixels[:, :, 1] = np.arange(24), np.arange(16)[:, None]
            pixels[:, :, 2] = number
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            writer.add(f"{number:05d}", buffer.getvalue(), "png", f"picture {number}")
    return ImageTextShards(tmp_path / "data", cache=tmp_path / "cache")
