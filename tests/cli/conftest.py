"""Small data sets in the layouts of the real ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def voc(tmp_path: Path) -> Path:
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
