"""The shipped cards on the real models and photographs, where those are present."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.experts.load import load_expert
from cliptex.experts.protocol import Expert
from cliptex.labels.kinds import ScalarField

pytest.importorskip("onnxruntime", reason="the experts extra is not installed")

DATA = Path(os.environ.get("CLIPTEX_DATA", Path(__file__).parents[2] / "../shared/data"))
pytestmark = pytest.mark.skipif(
    not (DATA / "experts").is_dir(), reason=f"no real experts in {DATA}"
)


def predict(expert: Expert, images: list[np.ndarray]) -> list[np.ndarray]:
    return [found.label for found in expert.predict(images)]


def voc(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    root = DATA / "VOCdevkit/VOC2012"
    names = (root / "ImageSets/Segmentation/val.txt").read_text().split()[:number]
    return [
        (
            np.asarray(Image.open(root / f"JPEGImages/{name}.jpg").convert("RGB")),
            np.asarray(Image.open(root / f"SegmentationClassAug/{name}.png")),
        )
        for name in names
    ]


@pytest.mark.data
def test_real_segmentation__of_voc() -> None:
    """DeepLab's pixels of things on 8 VOC images: 90 % right, 66 % where the label is shifted by an
    eighth of its width (on all 80 images here its mIoU is 0.577)."""
    expert = load_expert("deeplab_voc21", DATA / "experts")
    right = total = 0
    for image, truth in voc(8):
        (label,) = predict(expert, [image])
        assert label.shape == truth.shape
        things = (truth != 255) & (truth != 0)
        right += int((label[things] == truth[things]).sum())
        total += int(things.sum())
    assert right / total > 0.85


@pytest.mark.data
def test_real_depth_and_normals__of_nyu() -> None:
    """Test images of NYU: AbsRel about 0.17, normals within 30 degrees about 58 %."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(DATA / "nyu-mini/nyu_depth_v2_labeled.mat") as file:
        image = np.array(file["images"][-1]).transpose(2, 1, 0)
        depth = np.array(file["depths"][-1]).T
    disparity_expert = load_expert("nyu_depth", DATA / "experts")
    (disparity,) = predict(disparity_expert, [image])
    assert disparity.shape == (240, 320)
    full = ScalarField("1/m").resize(disparity, depth.shape)
    assert np.mean(np.abs(1 / full - depth) / depth) < 0.4
    (normals,) = predict(load_expert("nyu_normals", DATA / "experts"), [image])
    assert np.allclose(np.linalg.norm(normals, axis=2), 1, atol=1e-5)
    assert normals[200:, :, 1].mean() > 0.3, "the floor's normal points down, away from the camera"
    assert normals[:, :, 2].mean() > 0.3, "surfaces that are seen point away from the camera"
