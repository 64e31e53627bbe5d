"""Necks and heads behind any encoder: levels, and losses against torchvision's whole detectors."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD

from cliptex.models.clip import Clip
from cliptex.models.config import MaskRcnnForm, SsdForm
from cliptex.models.detection.mask_rcnn import MaskRcnnHead, Unscaled, build_mask_rcnn
from cliptex.models.detection.pyramid import EncoderPyramid
from cliptex.models.detection.ssd import SsdHead, SsdLevels, default_boxes

RCNN = MaskRcnnForm(
    width=8,
    hidden=16,
    depth=1,
    proposal_depth=1,
    anchor_scale=3,
    proposal_samples=32,
    train_proposals=(60, 30),
    test_proposals=(30, 10),
    rois=16,
    detections=5,
    score_threshold=0.0,
)
SSD_FORM = SsdForm(strides=(16, 32, -1), widths=(16, 16, 16), ratios=((2,), (2,), (2,)))
SIZE = (64, 96)
CHANNELS = {16: 12}


def target(*boxes: tuple[float, float, float, float], labels: tuple[int, ...] = ()) -> dict:
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[int(top) : int(bottom), int(left) : int(right)] = 1
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": found, "labels": torch.tensor(labels, dtype=torch.int64), "masks": masks}


TARGETS = [
    target((4, 6, 40, 44), (50, 10, 90, 60), labels=(1, 2)),
    target((20, 20, 60, 50), labels=(2,)),
]
EMPTY = target()


class Behind(nn.Module):
    """An encoder and a neck as torchvision's backbone: images -> levels."""

    def __init__(self, encoder: nn.Module, neck: nn.Module, width: int, listed: bool) -> None:
        super().__init__()
        self.encoder, self.neck, self.out_channels, self.listed = encoder, neck, width, listed

    def forward(self, images: Tensor) -> object:
        maps = {16: self.encoder(images)}
        levels = self.neck(maps, tuple(images.shape[-2:]))
        return OrderedDict(enumerate(levels)) if self.listed else levels


@pytest.fixture
def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 12, 16, stride=16)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def seeded(seed: int, call):
    torch.manual_seed(seed)
    return call()


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value > 0
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-7)


def test_mask_rcnn__losses_are_torchvision_s(encoder: nn.Module, images: Tensor) -> None:
    head = MaskRcnnHead(CHANNELS, 4, RCNN).train()
    neck = head.model.get_submodule("backbone")
    whole = build_mask_rcnn(Behind(encoder, neck, 8, False), neck.strides, 4, RCNN).train()
    whole.rpn.load_state_dict(head.model.rpn.state_dict())
    whole.roi_heads.load_state_dict(head.model.roi_heads.state_dict())
    whole.transform = Unscaled()
    maps = {16: encoder(images)}
    ours = seeded(3, lambda: head.losses(maps, SIZE, TARGETS))
    theirs = seeded(3, lambda: whole(list(images), TARGETS))
    assert_same(ours, theirs)
    names = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    assert ours.keys() == names


def test_ssd__losses_are_torchvision_s(encoder: nn.Module, images: Tensor) -> None:
    head = SsdHead(CHANNELS, 4, SSD_FORM).train()
    levels = head.model.get_submodule("backbone")
    whole = SSD(
        Behind(encoder, levels, 16, True),
        default_boxes(SSD_FORM),
        size=(SIZE[1], SIZE[0]),
        num_classes=4,
        head=head.model.head,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        iou_thresh=SSD_FORM.iou,
        positive_fraction=SSD_FORM.positive,
    ).train()
    whole.transform = Unscaled()
    ours = head.losses({16: encoder(images)}, SIZE, TARGETS)
    assert_same(ours, whole(list(images), TARGETS))
    assert ours.keys() == {"bbox_regression", "classification"}


@pytest.mark.parametrize(
    "make", [lambda: MaskRcnnHead(CHANNELS, 4, RCNN), lambda: SsdHead(CHANNELS, 4, SSD_FORM)]
)
def test_losses__of_pictures_without_objects(make, encoder: nn.Module, images: Tensor) -> None:
    torch.manual_seed(0)
    head, maps = make().train(), {16: encoder(images)}
    mixed = head.losses(maps, SIZE, [TARGETS[0], EMPTY])
    empty = head.losses(maps, SIZE, [EMPTY, EMPTY])
    assert all(torch.isfinite(x) for x in (*mixed.values(), *empty.values()))
    boxes = {"loss_box_reg", "loss_rpn_box_reg", "loss_mask", "bbox_regression"}
    assert all(empty[name] == 0 for name in boxes & empty.keys())
    sum(mixed.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_detect__stays_inside_a_picture_that_is_not_square(
    encoder: nn.Module, images: Tensor
) -> None:
    torch.manual_seed(0)
    for head in (MaskRcnnHead(CHANNELS, 4, RCNN).eval(), SsdHead(CHANNELS, 4, SSD_FORM).eval()):
        with torch.no_grad():
            found = head.detect({16: encoder(images)}, SIZE)
        assert len(found) == 2 and all(len(x["boxes"]) for x in found)
        boxes = torch.cat([x["boxes"] for x in found])
        assert boxes.min() >= 0 and boxes[:, 3].max() <= SIZE[0] and boxes[:, 2].max() <= SIZE[1]
        assert boxes[:, 2].max() > SIZE[0], "the right part of the wide picture is searched as well"
        assert all(x["labels"].min() >= 1 and x["labels"].max() <= 3 for x in found)


def test_neck__is_the_simple_pyramid_behind_one_map() -> None:
    neck = EncoderPyramid({14: 12}, 8)
    assert neck.simple is not None and neck.strides == (4, 8, 16, 32, 64)
    levels = neck({14: torch.rand(1, 12, 6, 9)}, (96, 128))
    assert {k: tuple(x.shape) for k, x in levels.items()} == {
        str(s): (1, 8, 96 // s, 128 // s) for s in (4, 8, 16, 32)
    } | {"64": (1, 8, 2, 2)}


@pytest.mark.parametrize("family", ["resnet", "timm-cnn"])
def test_neck__is_the_top_down_path_over_a_cnn_s_stages(tiny, family: str) -> None:
    clip: Clip = tiny(family)
    with torch.no_grad():
        maps = clip.image(torch.rand(1, 3, 64, 96)).maps
    channels = {stride: x.shape[1] for stride, x in maps.items()}
    neck = EncoderPyramid(channels, 8)
    assert neck.simple is None and neck.strides == (4, 8, 16, 32, 64)
    assert {s: p.block.conv.in_channels for s, p in neck.path.backbone_proj_layers.items()} == {  # pyright: ignore
        str(s): width for s, width in channels.items()
    }
    levels = neck(maps, (64, 96))
    assert [tuple(x.shape[-2:]) for x in levels.values()] == [
        (16, 24),
        (8, 12),
        (4, 6),
        (2, 3),
        (1, 2),
    ]
    assert SsdLevels(channels, SSD_FORM).channels[:2] == [channels[16], channels[32]]


def test_neck__refuses_strides_that_do_not_double() -> None:
    with pytest.raises(
        ValueError, match=r"maps at strides \[8, 32\] cannot be put under a pyramid"
    ):
        EncoderPyramid({8: 4, 32: 4}, 8)


def test_ssd_levels__halve_and_average() -> None:
    levels = SsdLevels(
        CHANNELS, SsdForm(strides=(16, 32, 64, -1), widths=(8, 8, 8, 8), ratios=((2,),) * 4)
    )
    x = torch.rand(2, 12, 8, 12)
    found = levels({16: x}, (128, 192))
    assert [tuple(y.shape[1:]) for y in found] == [(12, 8, 12), (12, 4, 6), (8, 2, 3), (8, 1, 1)]
    torch.testing.assert_close(found[1], nn.functional.max_pool2d(x, 2))
    with pytest.raises(ValueError, match="set `strides` to begin with what it gives"):
        SsdLevels({32: 4, 64: 4}, SSD_FORM)


def test_ssd__has_the_layers_of_the_authors_library() -> None:
    """corenet, modules/ssd_heads.py with mobilevit.yaml's values: counted by hand.

    A separable predictor over w channels to o outputs has 9 w + 2 w (norm) + (w + 1) o parameters,
    a projection from c channels c w + 2 w. Only the two levels that are read are projected.
    """
    head = SsdHead({16: 768}, 81, SsdForm())
    separable = {512: 6, 256: 6, 128: 6}
    outputs = {w: priors * 85 for w, priors in separable.items()}
    counted = {w: 11 * w + (w + 1) * o for w, o in outputs.items()}
    projected = sum(770 * w for w in (512, 256))
    expected = projected + counted[512] + 2 * counted[256] + 2 * counted[128] + 65 * 4 * 85
    predictor = head.model.head
    assert sum(p.numel() for p in predictor.parameters()) == expected == 1_282_890
    made = sum(11 * a + a * b + 2 * b for a, b in ((768, 256), (256, 128), (128, 128)))
    levels = head.model.get_submodule("backbone")
    assert sum(p.numel() for p in levels.parameters()) == made + 128 * 64
    kinds = {type(m) for m in head.modules() if not list(m.children())}
    assert nn.ReLU in kinds and nn.SiLU not in kinds


def test_ssd__starts_from_glorot_s_weights() -> None:
    torch.manual_seed(0)
    head = SsdHead({16: 768}, 81, SsdForm())
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    for conv in convs:
        rows, columns = conv.weight.shape[:2]
        cells = conv.weight[0, 0].numel()
        bound = (6 / (cells * (rows + columns))) ** 0.5
        assert conv.weight.abs().max() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert conv.bias is None or not conv.bias.any()


def test_ssd__learns_from_one_picture_whose_last_level_is_one_cell() -> None:
    head = SsdHead(CHANNELS, 4, SSD_FORM).train()
    losses = head.losses({16: torch.rand(1, 12, 4, 6)}, SIZE, TARGETS[:1])
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_ssd_form__has_the_mean_last() -> None:
    with pytest.raises(ValueError, match=r"only the last can be -1"):
        SsdForm(strides=(16, -1, 64), widths=(8, 8, 8), ratios=((2,),) * 3)
