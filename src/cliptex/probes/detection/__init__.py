"""Mask R-CNN and SSD on a frozen encoder, scored by COCO's average precision."""

from cliptex.probes.detection.ap import coco_ap
from cliptex.probes.detection.config import (
    DetectionProbe,
    Schedule,
    paper_mask_rcnn,
    paper_ssd,
    small_mask_rcnn,
    small_ssd,
)
from cliptex.probes.detection.run import DetectionOutcome, run_detection_probe

__all__ = [
    "DetectionOutcome",
    "DetectionProbe",
    "Schedule",
    "coco_ap",
    "paper_mask_rcnn",
    "paper_ssd",
    "run_detection_probe",
    "small_mask_rcnn",
    "small_ssd",
]
