"""The scorers of probes, which labels share: see `cliptex.metrics.scorers`."""

from cliptex.metrics.scorers import (
    BACKGROUND,
    AccuracyScorer,
    DepthScorer,
    NormalsScorer,
    SegmentationScorer,
    named,
    thing_ids,
)

__all__ = [
    "BACKGROUND",
    "AccuracyScorer",
    "DepthScorer",
    "NormalsScorer",
    "SegmentationScorer",
    "named",
    "thing_ids",
]
