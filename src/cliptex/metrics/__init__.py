"""Metrics of the downstream tasks, in numpy; every percentage is in 0-100.

Each class streams: `update` per image or batch, read the numbers at the end. Nothing here knows
datasets, models or probes.
"""

from cliptex.metrics.confusion import ConfusionMatrix, ImageConfusion, counts_of, iou_from_counts
from cliptex.metrics.depth import (
    DEPTH_RANGE,
    DepthErrors,
    absrel,
    align_disparity,
    aligned_depth,
    depth_errors,
    depth_mask,
)
from cliptex.metrics.means import mean_of_present, percent_of
from cliptex.metrics.normals import ANGLES, AngularErrors, angular_error
from cliptex.metrics.ranking import (
    MEAN_PER_CLASS,
    RULE_PER_CLASS,
    RULE_TIES,
    Accuracy,
    Ranks,
    best_ranks,
    expected_hits,
    first_of_equals,
    label_ranks,
    mean_per_class,
    recall_at,
    retrieval_ranks,
    topk,
    topk_hits,
)

__all__ = [
    "ANGLES",
    "DEPTH_RANGE",
    "MEAN_PER_CLASS",
    "RULE_PER_CLASS",
    "RULE_TIES",
    "Accuracy",
    "AngularErrors",
    "ConfusionMatrix",
    "DepthErrors",
    "ImageConfusion",
    "Ranks",
    "absrel",
    "align_disparity",
    "aligned_depth",
    "angular_error",
    "best_ranks",
    "counts_of",
    "depth_errors",
    "depth_mask",
    "expected_hits",
    "first_of_equals",
    "iou_from_counts",
    "label_ranks",
    "mean_of_present",
    "mean_per_class",
    "percent_of",
    "recall_at",
    "retrieval_ranks",
    "topk",
    "topk_hits",
]
