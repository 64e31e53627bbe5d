"""The authors' Mask R-CNN as an expert, through its real loading code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cliptex.experts.catlip import load_catlip_maskrcnn, read
from cliptex.models.detection.plain_vit import VitForm
from cliptex.models.vit_detector import DetectorForm, build_vit_maskrcnn

TINY = DetectorForm(VitForm(16, 1, 2, 32, 9), width=8, hidden=16, score_threshold=0.0)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = build_vit_maskrcnn(TINY)
    with torch.no_grad():  # so sure of class 3 that its detections pass the threshold
        network.get_parameter("model.roi_heads.box_predictor.cls_score.bias")[3] = 20
    state = network.state_dict()
    state["model.backbone.encoder.neural_augmentor.noise._low"] = torch.tensor(0.0)
    torch.save(state, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def test_expert__labels_images_of_any_size(weights: Path) -> None:
    expert = load_catlip_maskrcnn(weights, form=TINY, side=64)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in ((40, 60), (600, 300))]
    together = expert.predict(images)
    assert [p.label.shape for p in together] == [(40, 60), (512, 256)]
    for image, found in zip(images, together, strict=True):
        assert set(np.unique(expert.spec.kind.check(found.label))) <= {0, 3}
        assert found.instances is not None and set(found.instances) == {3}
        (alone,) = expert.predict([image])
        assert (alone.label != found.label).mean() < 0.01
    assert expert.spec.learnt_from == ("coco",)


def test_read__paints_counts_and_survives_no_instance() -> None:
    masks = torch.zeros(2, 1, 4, 4)
    masks[:, :, :, :2] = 1
    found = {
        "masks": masks,
        "labels": torch.tensor([7, 9]),
        "scores": torch.tensor([0.6, 0.4]),
    }
    prediction = read(found, (4, 4))
    np.testing.assert_array_equal(prediction.label[:, :2], 7)
    np.testing.assert_array_equal(prediction.label[:, 2:], 0)
    assert prediction.instances == {7: 1}
    empty = read({name: x[:0] for name, x in found.items()}, (4, 6))
    assert empty.label.shape == (4, 6) and not empty.label.any() and empty.instances == {}


def test_load__names_what_does_not_fit(weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state.pop("model.rpn.head.conv.1.bias")
    state["extra"] = torch.zeros(1)
    torch.save(state, weights)
    with pytest.raises(ValueError, match=r"1 missing \(model.rpn.head.conv.1.bias\).*extra"):
        load_catlip_maskrcnn(weights, form=TINY, side=64)
