"""torchvision's Mask R-CNN: COCO's ids, strict loading, and labels of the full-size network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights

from cliptex.experts.torch_expert import TorchExpert, load_exactly, read_weights
from cliptex.experts.torchvision_detectors import (
    COCO_CLASSES,
    COCO_NAMES,
    SPARSE_IDS,
    _read,
    build_maskrcnn,
    contiguous_ids,
    load_maskrcnn,
    paste_masks,
)

DOG = 18  # COCO's raw id; number 17 of the 80


def zeros_for_the_network() -> dict[str, Tensor]:
    """A state dict of the full size whose every proposal is a dog, with masks of exactly 0.5."""
    with torch.device("meta"):
        network = build_maskrcnn()
    state = {name: torch.zeros(x.shape, dtype=x.dtype) for name, x in network.state_dict().items()}
    state["roi_heads.box_predictor.cls_score.bias"][DOG] = 20
    return state


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> TorchExpert:
    path = tmp_path_factory.mktemp("maskrcnn") / "weights.pth"
    torch.save({"model": zeros_for_the_network()}, path)
    loaded = load_maskrcnn(path)
    path.unlink()
    loaded.network.transform.min_size = (64,)  # 800 takes seconds
    loaded.network.rpn._post_nms_top_n["testing"] = 20
    return loaded


def test_the_sparse_ids_are_those_of_torchvision() -> None:
    categories = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"]
    table = contiguous_ids()
    assert len(categories) == len(table) == SPARSE_IDS
    assert len(COCO_NAMES) == 80 and len(COCO_CLASSES.classes) == 81
    for raw, name in enumerate(categories):
        if name in ("N/A", "__background__"):
            assert table[raw] == 0
        else:
            assert COCO_CLASSES.classes[table[raw]] == name


def test_labels_of_the_full_network(expert: TorchExpert) -> None:
    images = [np.full((48, 64, 3), 90, np.uint8), np.zeros((80, 32, 3), np.uint8)]
    together = expert.predict(images)
    for image, found in zip(images, together, strict=True):
        assert expert.spec.kind.check(found.label).shape == image.shape[:2]
        # masks fade at the borders of boxes, so not every pixel need be painted
        assert set(np.unique(found.label)) <= {0, 17} and (found.label == 17).mean() > 0.25
        assert found.instances is not None and set(found.instances) == {17}
        (alone,) = expert.predict([image])
        np.testing.assert_array_equal(alone.label, found.label)
        assert alone.instances == found.instances


def test_boxes_and_masks_land_where_the_network_found_them(
    expert: TorchExpert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """48 x 64 pixels enter as 64 x 85, padded to 64 x 96; boxes are in pixels of the former."""
    left = torch.zeros(1, 1, 28, 28)
    left[..., :14] = 1
    boxes = {0: [42.5, 16.0, 85.0, 48.0], 1: [0.0, 0.0, 42.5, 64.0]}

    def found(features: Any, proposals: Any, sizes: list[tuple[int, int]]) -> Any:
        assert sizes == [(64, 85)] * 2 and features["0"].shape[2:] == (16, 24)
        scores, labels = torch.tensor([0.9]), torch.tensor([DOG])
        return [
            {"boxes": torch.tensor([box]), "labels": labels, "scores": scores, "masks": left}
            for box in boxes.values()
        ], {}

    monkeypatch.setattr(expert.network.roi_heads, "forward", found)
    together = expert.predict([np.zeros((48, 64, 3), np.uint8)] * 2)
    for prediction, (rows, columns) in zip(
        together, [((12, 36), (32, 48)), ((0, 48), (0, 16))], strict=True
    ):
        painted = np.argwhere(prediction.label == 17)
        bounds = [*painted.min(axis=0), *(painted.max(axis=0) + 1)]
        assert np.abs(np.subtract(bounds, [rows[0], columns[0], rows[1], columns[1]])).max() <= 1


def test_unlabelled_pixels_may_be_ignored(
    expert: TorchExpert, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert expert.spec.thresholds["unlabelled"] == 0
    outputs = {
        "boxes": torch.tensor([[0.5, 0.0, 1.0, 1.0]]),
        "masks": torch.ones(1, 28, 28),
        "classes": torch.tensor([17]),
        "scores": torch.tensor([0.9]),
    }
    for unlabelled, number in (("background", 0), ("ignore", 255)):
        label = _read(outputs, (8, 8), unlabelled=unlabelled).label
        assert (label[:, 4:] == 17).all() and (label[:, :3] == number).all()


def test_ids_without_a_class_are_dropped(expert: TorchExpert) -> None:
    bias = expert.network.roi_heads.box_predictor.cls_score.bias
    bias[DOG], bias[12] = 0, 20
    try:
        (found,) = expert.predict([np.zeros((64, 64, 3), np.uint8)])
    finally:
        bias[DOG], bias[12] = 20, 0
    assert not found.label.any() and found.instances == {}


def test_the_spec_says_what_decides_labels(expert: TorchExpert) -> None:
    spec = expert.spec
    assert spec.kind == COCO_CLASSES and spec.learnt_from == ("coco",)
    assert spec.thresholds["score"] == spec.thresholds["mask"] == 0.5
    assert len(spec.weights_sha256) == 64 and spec.preprocessing["shorter_side"] == 800


def test_weights_must_fit_exactly(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1, device="meta")
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.ones(1, 2)}, path)
    with pytest.raises(ValueError, match=r"1 missing \(bias\)"):
        load_exactly(network, read_weights(path), path)
    save_file({"weight": torch.ones(1, 3), "bias": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"weight \(1, 3\) instead of"):
        load_exactly(network, read_weights(path), path)
    save_file({"weight": torch.ones(1, 2).half(), "bias": torch.ones(1)}, path)
    load_exactly(network, read_weights(path), path)
    assert network.weight.dtype == torch.float32 and network.weight.tolist() == [[1, 1]]
    with pytest.raises(FileNotFoundError, match="absent"):
        read_weights(tmp_path / "absent.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no state dict"):
        read_weights(tmp_path / "list.pth")


def test_masks_are_pasted_at_half_pixel_precision() -> None:
    masks = torch.tensor([[[0.2, 0.8]]]).expand(1, 2, 2)
    boxes = torch.tensor([[0.25, 0.0, 0.75, 1.0]])
    (plane,) = paste_masks(masks, boxes, (2, 8))
    # cells are two pixels wide, centred at 3 and 5 of 8; pixel centres lie at 2.5, 3.5, 4.5, 5.5
    expected = [0, 0.05, 0.15, 0.35, 0.65, 0.6, 0.2, 0]
    np.testing.assert_allclose(plane[0], expected, atol=1e-6)
    assert paste_masks(masks[:0], boxes[:0], (2, 8)).shape == (0, 2, 8)
