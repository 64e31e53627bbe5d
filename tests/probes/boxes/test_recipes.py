"""Table 8's two columns of detection, value by value, and what the authors' library fills in."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cliptex.models.config import MaskRcnnForm, SsdForm
from cliptex.models.detection.ssd import prior_scales
from cliptex.probes.boxes import build_detector
from cliptex.probes.recipes import paper_mask_rcnn, paper_ssd, small_mask_rcnn, small_ssd

STEPS_PER_EPOCH = 1000


def test_paper_mask_rcnn__is_table_8() -> None:
    config = paper_mask_rcnn()
    assert config.epochs == 25
    assert config.schedule.kind == "multi-step"
    assert config.schedule.warmup_steps == 250
    assert config.schedule.warmup_init_lr == 1e-5
    assert config.schedule.lr == 3e-4
    assert config.schedule.milestones == (22, 24)
    assert config.schedule.gamma == 0.1
    assert config.batch_size == 4
    assert (config.learning_rates, config.seeds, config.recipe) == ((), (0,), "paper")


def test_paper_ssd__is_table_8() -> None:
    config = paper_ssd()
    assert config.epochs == 200
    assert config.schedule.kind == "cosine"
    assert config.schedule.warmup_steps == 500
    assert config.schedule.warmup_init_lr == 9e-5
    assert config.schedule.lr == 9e-4
    assert config.schedule.min_lr == 1e-6
    assert config.batch_size == 32


def test_paper_mask_rcnn__rates_over_time() -> None:
    config = paper_mask_rcnn()
    total = 25 * STEPS_PER_EPOCH

    def rate(step: int) -> float:
        return config.schedule.lr * config.schedule.factor(step, total, STEPS_PER_EPOCH)

    assert rate(0) == pytest.approx(1e-5)
    assert rate(125) == pytest.approx((1e-5 + 3e-4) / 2)
    assert rate(250) == rate(22_000 - 1) == pytest.approx(3e-4)
    assert rate(22_000) == rate(24_000 - 1) == pytest.approx(3e-5)
    assert rate(24_000) == rate(total - 1) == pytest.approx(3e-6)


def test_paper_ssd__rates_over_time() -> None:
    config = paper_ssd()
    total = 200 * STEPS_PER_EPOCH

    def rate(step: int) -> float:
        return config.schedule.lr * config.schedule.factor(step, total, STEPS_PER_EPOCH)

    assert (rate(0), rate(500)) == (pytest.approx(9e-5), pytest.approx(9e-4))
    assert rate((500 + total - 1) // 2) == pytest.approx((9e-4 + 1e-6) / 2, rel=1e-3)
    assert rate(total - 1) == pytest.approx(1e-6)


def test_paper_forms__are_the_authors_library() -> None:
    """corenet, mask_rcnn.py and coco_mask_rcnn.py; ml-cvnets, ssd_coco/mobilevit.yaml."""
    rcnn, ssd = paper_mask_rcnn(), paper_ssd()
    form = rcnn.head
    assert isinstance(form, MaskRcnnForm) and isinstance(ssd.head, SsdForm)
    assert (rcnn.resolution, rcnn.train_sizes[0], rcnn.train_sizes[-1]) == (1024, 512, 1280)
    assert (rcnn.weight_decay, rcnn.decay_biases, rcnn.augment) == (0.1, False, "flip")
    assert (form.width, form.hidden, form.depth, form.proposal_depth) == (256, 1024, 4, 2)
    assert (form.proposal_iou, form.proposal_samples, form.proposal_positive) == (
        (0.7, 0.7),
        256,
        0.5,
    )
    assert (form.train_proposals, form.test_proposals) == ((2000, 2000), (1000, 1000))
    assert (form.rois, form.roi_positive, form.roi_iou) == (512, 0.25, 0.5)
    assert (form.score_threshold, form.nms, form.detections) == (0.05, 0.5, 100)
    assert (ssd.resolution, ssd.weight_decay, ssd.decay_biases, ssd.augment) == (
        320,
        0.01,
        True,
        "ssd",
    )
    assert ssd.head.strides == (16, 32, 64, 128, 256, -1)
    assert ssd.head.widths == (512, 256, 256, 128, 128, 64)
    assert prior_scales(ssd.head) == pytest.approx([0.1 + 0.95 * k / 6 for k in range(7)])
    assert (ssd.head.iou, ssd.head.positive, ssd.head.nms) == (0.5, 0.25, 0.5)
    assert (ssd.head.score_threshold, ssd.head.candidates, ssd.head.detections) == (0.01, 400, 200)


def test_small_recipes__are_as_small_as_they_say() -> None:
    rcnn, ssd = small_mask_rcnn(), small_ssd()
    assert isinstance(rcnn.head, MaskRcnnForm)
    assert (rcnn.head.rois, rcnn.head.width, rcnn.recipe) == (64, 64, "small")
    for config in (rcnn, ssd):
        head = build_detector(config, {16: 192}, classes=13)
        assert sum(p.numel() for p in head.parameters()) < 1.1e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_sizes": (500,)}, r"`train_sizes`: \[500\] are not multiples of 32"),
        ({"learning_rates": (1e-3, 1e-3)}, "contains a value twice"),
        ({"seeds": (1, 1)}, "contains a value twice"),
        ({"learning_rates": (-1.0,)}, "must be positive"),
        ({"resolution": 100}, "multiple of 32"),
        ({"stride": 3}, "Extra inputs"),
    ],
)
def test_mistakes__are_named(probe, change: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        probe("ssd", **change)


def test_protocol__leaves_out_what_changes_no_number(probe) -> None:
    about = probe("ssd", workers=0).protocol()
    assert probe("ssd", save_every=7, extract_batch=2).protocol() == about
    assert probe("ssd", resolution=96).protocol() != about
