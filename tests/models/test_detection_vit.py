"""The authors' detector: the released names and shapes, and its arithmetic by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from cliptex.models.corenet import PositionTable, VitForm
from cliptex.models.detection.mask_rcnn import DetectorForm, build_vit_maskrcnn
from cliptex.models.detection.pyramid import PixelNorm, PyramidBackbone

REFERENCE = Path(
    os.environ.get("CLIPTEX_REFERENCE", Path(__file__).parents[3] / "shared" / "reference")
)
TINY = DetectorForm(VitForm(16, 1, 2, 32, 9), classes=5, width=8, hidden=16, score_threshold=0.0)


def test_names__equal_the_released_detector() -> None:
    path = REFERENCE / "checkpoint_keys" / "catlip_maskrcnn_vit_b.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with torch.device("meta"):
        state = build_vit_maskrcnn().state_dict()
    listed = [(k, v) for k, v in json.loads(path.read_text()).items() if "neural_aug" not in k]
    assert [(k, list(x.shape)) for k, x in state.items()] == listed


def test_pixel_norm__adds_eps_to_the_deviation() -> None:
    x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)  # mean 2, biased deviation 1
    out = PixelNorm(2, eps=1.0)(x)
    torch.testing.assert_close(out.flatten(), torch.tensor([-0.5, 0.5]))


def test_positions__are_interpolated_along_the_sequence() -> None:
    table = PositionTable(2, 1)
    with torch.no_grad():
        table.pos_embed.get_parameter("pos_embed").copy_(torch.tensor([0.0, 1.0]).view(1, 1, 2, 1))
    torch.testing.assert_close(table(2).flatten(), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(table(4).flatten(), torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_pyramid__adds_what_the_coarser_convolution_gave() -> None:
    torch.manual_seed(0)
    net = PyramidBackbone(torch.nn.Identity(), {16: 3, 32: 3}, 4)
    maps = {16: torch.randn(1, 3, 4, 4), 32: torch.randn(1, 3, 2, 2)}
    out = net.merge(maps)
    raw16, raw32 = (net.backbone_proj_layers[str(s)](maps[s]) for s in (16, 32))
    above = net.fpn_proj_layers["32"](raw32)
    enlarged = above.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(out["32"], raw32)
    torch.testing.assert_close(out["16"], net.fpn_proj_layers["16"](raw16 + enlarged))
    torch.testing.assert_close(out["64"], net.extra_layers["64"](raw32))
    assert list(out) == ["16", "32", "64"]


def test_detector__runs_at_any_multiple_of_32() -> None:
    torch.manual_seed(0)
    net = build_vit_maskrcnn(TINY).eval()
    with torch.no_grad():
        maps = net.model.backbone(torch.rand(1, 3, 64, 96))
        (found,) = net([torch.rand(3, 64, 96)])
    assert [(k, tuple(x.shape[-2:])) for k, x in maps.items()] == [  # type: ignore[union-attr]
        ("4", (16, 24)),
        ("8", (8, 12)),
        ("16", (4, 6)),
        ("32", (2, 3)),
        ("64", (1, 2)),
    ]
    assert len(found["scores"]) == 100
    assert found["masks"].shape == (100, 1, 64, 96)


def test_encoder__stem_sees_a_border_of_one_pixel() -> None:
    net = build_vit_maskrcnn(TINY)
    conv = net.get_parameter("model.backbone.encoder.patch_emb.0.block.conv.weight")
    stem = net.get_submodule("model.backbone.encoder.patch_emb.0.block.conv")
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(stem(x), F.conv2d(F.pad(x, (1, 1, 1, 1)), conv, stride=4))
