"""Segmentation networks of the hub: tiny ones of the real classes, and outputs worked by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

from cliptex.experts.hub_segmentation import (
    View,
    _query_forward,
    _query_reader,
    class_columns,
    load_hub_segmentation,
    mask_quality,
)
from cliptex.experts.protocol import Unlabelled
from cliptex.experts.torch_expert import TorchExpert
from cliptex.labels.kinds import Box
from cliptex.labels.sampling import WHOLE

NAMES = {0: "person", 1: "dog", 2: "zebra", 3: "sky"}
SMALL = {"encoder_layers": 1, "dim_feedforward": 16, "num_attention_heads": 2, "hidden_dim": 32}


def swin() -> Any:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    return hf.SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=2, out_features=stages
    )


def mask2former() -> tuple[Any, Any]:
    config = hf.Mask2FormerConfig(
        backbone_config=swin(), feature_size=32, mask_feature_size=32, encoder_feedforward_dim=16,
        decoder_layers=2, num_queries=6, id2label=NAMES, **SMALL,
    )  # fmt: skip
    processor = hf.Mask2FormerImageProcessor(size={"height": 64, "width": 64})
    return hf.Mask2FormerForUniversalSegmentation(config), processor


def maskformer() -> tuple[Any, Any]:
    decoder = hf.DetrConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, num_queries=6, num_labels=4,
    )  # fmt: skip
    config = hf.MaskFormerConfig(
        backbone_config=swin(), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32,
        id2label=NAMES,
    )  # fmt: skip
    processor = hf.MaskFormerImageProcessor(size={"shortest_edge": 48, "longest_edge": 80})
    return hf.MaskFormerForInstanceSegmentation(config), processor


def oneformer() -> tuple[Any, Any]:
    config = hf.OneFormerConfig(
        backbone_config=swin(), num_queries=7, conv_dim=32, mask_dim=32, decoder_layers=3,
        encoder_feedforward_dim=16, query_dec_layers=1, text_encoder_width=32, id2label=NAMES,
        text_encoder_num_layers=1, text_encoder_vocab_size=300, text_encoder_n_ctx=2, **SMALL,
    )  # fmt: skip
    processor = hf.OneFormerImageProcessor(size={"shortest_edge": 50, "longest_edge": 80})
    return hf.OneFormerForUniversalSegmentation(config), processor


def eomt() -> tuple[Any, Any]:
    config = hf.EomtConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=64, num_blocks=1,
        num_queries=6, num_register_tokens=1, id2label=NAMES,
    )  # fmt: skip
    processor = hf.EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True)
    return hf.EomtForUniversalSegmentation(config), processor


def rf_detr() -> tuple[Any, Any]:
    backbone = hf.RfDetrDinov2Config(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, patch_size=8, num_windows=2,
        image_size=64, out_features=["stage2", "stage3"],
    )  # fmt: skip
    config = hf.RfDetrConfig(
        backbone_config=backbone, d_model=16, decoder_ffn_dim=16, decoder_layers=2, num_queries=6,
        decoder_self_attention_heads=2, decoder_cross_attention_heads=2, group_detr=2,
        id2label={0: "N/A", 1: "person", 2: "N/A", 3: "dog"},
    )  # fmt: skip
    processor = hf.RfDetrImageProcessor(size={"height": 64, "width": 64})
    return hf.RfDetrForInstanceSegmentation(config), processor


def segformer() -> tuple[Any, Any]:
    config = hf.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, id2label=NAMES,
    )  # fmt: skip
    processor = hf.SegformerImageProcessor(size={"height": 64, "width": 64})
    return hf.SegformerForSemanticSegmentation(config), processor


def mask2former_by_edges() -> tuple[Any, Any]:
    edges = {"shortest_edge": 50, "longest_edge": 90}
    return mask2former()[0], hf.Mask2FormerImageProcessor(size=edges, size_divisor=32)


def eomt_oblong() -> tuple[Any, Any]:
    edges = {"shortest_edge": 40, "longest_edge": 64}
    return eomt()[0], hf.EomtImageProcessor(size=edges, do_pad=True)


MAKERS = {
    make.__name__: make
    for make in (
        mask2former,
        mask2former_by_edges,
        maskformer,
        oneformer,
        eomt,
        eomt_oblong,
        rf_detr,
        segformer,
    )
}
HEADS = {  # the layer whose bias decides the class
    "mask2former": "class_predictor",
    "mask2former_by_edges": "class_predictor",
    "maskformer": "class_predictor",
    "oneformer": "model.transformer_module.decoder.class_embed",
    "eomt": "class_predictor",
    "eomt_oblong": "class_predictor",
    "rf_detr": "model.class_embed",
}


@pytest.fixture(scope="module", params=MAKERS)
def expert(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TorchExpert:
    """Saved and loaded again; every query is sure that it sees class column 1."""
    torch.manual_seed(0)
    network, processor = MAKERS[request.param]()
    if request.param in HEADS:
        head = network.get_submodule(HEADS[request.param])
        with torch.no_grad():
            head.bias[1] += 20
    folder = tmp_path_factory.mktemp(request.param)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    if request.param == "oneformer":
        letters = "abcdefghijklmnopqrstuvwxyz"
        tokens = [*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
        vocabulary = {token: i for i, token in enumerate(tokens)}
        hf.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return load_hub_segmentation(folder)


def test_labels_cover_each_image_alone_and_in_a_batch(expert: TorchExpert) -> None:
    noise = np.random.default_rng(0)
    sizes = [(40, 60), (70, 33), (40, 60)]
    images = [noise.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]
    together = expert.predict(images)
    for image, found in zip(images, together, strict=True):
        assert expert.spec.kind.check(found.label).shape == image.shape[:2]
        assert found.confidence is not None and found.confidence.min() >= 0
        assert found.confidence.max() <= 1
        (alone,) = expert.predict([image])
        assert (alone.label == found.label).mean() > 0.999
        (again,) = expert.predict([image])
        np.testing.assert_array_equal(again.label, alone.label)
    classes = expert.spec.kind.classes
    if classes[0] == "background":  # column 1 of RF-DETR's is its first class with a name
        sure = classes.index("dog" if "sky" in classes else "person")
        assert {number for found in together for number in found.instances} == {sure}
    else:
        assert classes == tuple(NAMES.values()) and together[0].instances is None


@pytest.mark.parametrize("size", [(40, 60), (70, 33), (50, 50), (31, 97)])
def test_masks_lie_where_the_image_shows_them(expert: TorchExpert, size: tuple[int, int]) -> None:
    """Red top left and blue bottom right come back there, through the real processor and box.

    The mask plane has the size that the real network gives it, and shows at each of its pixels
    what that part of the network's padded input shows.
    """
    height, width = size
    image = np.zeros((*size, 3), np.uint8)
    image[: height // 2, : width // 3, 0] = 255
    image[height * 2 // 3 :, width // 2 :, 2] = 255
    truth = np.where(image[..., 0] > 0, 1, np.where(image[..., 2] > 0, 2, 0))
    pixels = expert.adapter.prepare(image)  # (3, h, w), normalised
    outputs = expert.adapter.forward(expert.network, pixels[None])[0]
    semantic = "logits" in outputs
    plane = outputs["logits" if semantic else "masks"].shape[-2:]
    mean, std = (torch.tensor(expert.spec.preprocessing[key]) for key in ("mean", "std"))
    shown = (pixels * std[:, None, None] + mean[:, None, None])[[0, 2]].clamp(0, 1)
    strides = [round(-(-side // cells)) for side, cells in zip(shown.shape[1:], plane, strict=True)]
    below, beside = (
        cells * stride - side
        for cells, stride, side in zip(plane, strides, shown.shape[1:], strict=True)
    )
    padded = torch.nn.functional.pad(shown, (0, beside, 0, below))
    cells = torch.nn.functional.avg_pool2d(padded, strides)
    assert cells.shape[1:] == plane
    if semantic:
        empty = torch.full((1, *plane), 0.5)
        found = {"logits": torch.cat([empty, cells, 0 * empty]), "confidence": empty[0]}
    else:
        sure = torch.ones(2)
        found = {"scores": sure, "classes": torch.tensor([1, 2]), "masks": 40 * (cells - 0.5)}
    label = expert.adapter.read(found, size).label
    assert label.shape == size
    for number in (1, 2):
        both = ((label == number) & (truth == number)).sum()
        either = ((label == number) | (truth == number)).sum()
        assert both / either > 0.8
    assert (label[: height // 4, : width // 6] == 1).all()
    inset = 1 + round(max(size) / max(plane))  # the last cell may lie half in the padding
    assert label[-inset, -inset] == 2


def test_what_is_unlabelled_may_be_ignored() -> None:
    sure = torch.tensor([[0.99, 0.01]]).log()
    found = query_label(sure, torch.tensor([[[-20.0, 20]]]), (1, 2), unlabelled="ignore")[0]
    assert found.label.tolist() == [[255, 1]]


def test_spec__says_what_is_known(expert: TorchExpert) -> None:
    spec = expert.spec
    assert (spec.licence, spec.learnt_from) == ("unknown", ("unknown",))
    assert spec.thresholds.get("unlabelled", 0) == 0


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    config = hf.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    hf.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="checkpoint of vit"):
        load_hub_segmentation(tmp_path)


def config(names: dict[int, str], slots: int | None = None) -> Any:
    return SimpleNamespace(id2label=names, num_labels=slots or len(names), model_type="eomt")


def test_columns_without_a_name_are_dropped() -> None:
    columns, kind = class_columns(config({0: "N/A", 1: "person", 2: "N/A", 3: "dog"}), False)
    assert columns == [1, 3] and kind.classes == ("background", "person", "dog")
    columns, kind = class_columns(config({0: "wall", 1: "N/A"}), True)
    assert columns == [0, 1] and kind.classes == ("wall", "N/A")
    assert class_columns(config({i: f"c{i}" for i in range(255)}), False)[1].ignore == 65535
    with pytest.raises(ValueError, match="must name columns"):
        class_columns(config({1: "person", 90: "toothbrush"}), False)


def query_label(
    classes: Tensor,
    masks: Tensor,
    size: tuple[int, int],
    box: Box = WHOLE,
    unlabelled: Unlabelled = "background",
) -> Any:
    """A label from class logits (Q, C + 1) and mask logits (Q, h, w), by the real functions."""
    found = SimpleNamespace(class_queries_logits=classes[None], masks_queries_logits=masks[None])
    forward = _query_forward("softmax", list(range(classes.shape[1] - 1)), None)
    (outputs,) = forward(lambda pixel_values: found, torch.zeros(1, 3, 4, 4))
    view = View(lambda image: torch.zeros(3, 4, 4), lambda image, plane: box, {})
    return _query_reader(view, "softmax", 255, unlabelled)(outputs, size), outputs


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_the_surer_query_wins_whatever_the_order(order: list[int]) -> None:
    # probabilities: query 0 is class 1 with 0.6, query 1 class 2 with 0.9, query 2 nothing
    classes = torch.tensor([[0.6, 0.1, 0.3], [0.05, 0.9, 0.05], [0.1, 0.1, 0.8]]).log()
    masks = torch.tensor([[[20.0, 20, 20, -20]], [[-20, -20, 20, -20]], [[20, 20, 20, 20]]])
    found, outputs = query_label(classes[order], masks[order], (1, 4))
    assert found.label.tolist() == [[1, 1, 2, 0]] and found.instances == {1: 1, 2: 1}
    np.testing.assert_allclose(found.confidence, [[0.6, 0.6, 0.9, 1]], rtol=1e-5)
    assert outputs["masks"].shape == (2, 1, 4) and outputs["all_scores"].shape == (3,)


def test_unsure_masks_lower_a_score() -> None:
    even = torch.tensor([[0.7, 0.3]]).log()
    mask = torch.full((1, 1, 2), float(np.log(0.6 / 0.4)))  # probability 0.6: score 0.42
    assert not query_label(even, mask, (1, 2))[0].label.any()
    np.testing.assert_allclose(mask_quality(np.array([[[0.6, 0.8, 0.1]]])), [0.7])
    np.testing.assert_allclose(mask_quality(np.zeros((1, 2, 2))), [0])


def test_padding_is_cut_off() -> None:
    """Before masks are enlarged, so that it does not bleed into the last pixels."""
    sure = torch.tensor([[0.99, 0.01]]).log()
    mask = torch.tensor([[[-20.0, 20, -60, -60]]])
    found, _ = query_label(sure, mask, (1, 8), Box(right=0.5))
    assert found.label.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
