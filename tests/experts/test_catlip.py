"""The authors' Mask R-CNN as an expert, through its real loading code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cliptex.experts.catlip import detect, load_catlip_maskrcnn, read
from cliptex.experts.protocol import Placement, Precision
from cliptex.models.corenet import VitForm
from cliptex.models.detection.mask_rcnn import DetectorForm, build_vit_maskrcnn

BF16: Precision = "bfloat16"
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


def test_half_precision__what_is_not_finite_is_computed_again(weights: Path) -> None:
    """The backbone gives NaN under autocast: heads drop it silently and would find nothing."""
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (expected,) = load_catlip_maskrcnn(weights, form=TINY, side=64).predict([image])
    assert expected.instances
    expert = load_catlip_maskrcnn(weights, form=TINY, side=64, placement=Placement("cpu", BF16))
    heads_in_half: list[bool] = []

    def spoil(module: Any, args: Any, pyramid: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            name: x * torch.nan if torch.is_autocast_enabled("cpu") else x
            for name, x in pyramid.items()
        }

    model = expert.network.get_submodule("model")
    model.get_submodule("backbone").register_forward_hook(spoil)
    for name in ("rpn", "roi_heads"):
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args: heads_in_half.append(torch.is_autocast_enabled("cpu"))
        )
    (found,) = expert.predict([image])
    np.testing.assert_array_equal(found.label, expected.label)
    assert found.instances == expected.instances and heads_in_half == [False] * 4


def test_detect__equals_the_network_s_own_forward(weights: Path) -> None:
    network = load_catlip_maskrcnn(weights, form=TINY, side=64).network
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for ours, theirs in zip(detect(network, images), network(list(images)), strict=True):
            assert len(theirs["scores"])
            for name, value in theirs.items():
                torch.testing.assert_close(ours[name], value)


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
