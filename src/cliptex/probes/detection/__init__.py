"""Mask R-CNN and SSD on a frozen encoder, scored by COCO's average precision."""

from cliptex.probes.detection.ap import coco_ap
from cliptex.probes.detection.config import (
    DetectionProbe,
    paper_mask_rcnn,
    paper_ssd,
    small_mask_rcnn,
    small_ssd,
)
from cliptex.probes.detection.matches import coco_matches
from cliptex.probes.detection.run import DetectionOutcome, run_detection_probe

__all__ = [
    "DetectionOutcome",
    "DetectionProbe",
    "coco_ap",
    "coco_matches",
    "paper_mask_rcnn",
    "paper_ssd",
    "run_detection_probe",
    "small_mask_rcnn",
    "small_ssd",
]
