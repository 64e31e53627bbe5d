"""What a CLIP does without training: classification and segmentation by prompts, retrieval."""

from cliptex.zeroshot.encode import ZeroShotOutcome
from cliptex.zeroshot.images import run_retrieval, run_zeroshot
from cliptex.zeroshot.prompts import (
    IMAGENET_TEMPLATES,
    PLAYROOM_TEMPLATES,
    SHORT_TEMPLATES,
    classifier_weights,
)
from cliptex.zeroshot.segment import run_zeroshot_segmentation

__all__ = [
    "IMAGENET_TEMPLATES",
    "PLAYROOM_TEMPLATES",
    "SHORT_TEMPLATES",
    "ZeroShotOutcome",
    "classifier_weights",
    "run_retrieval",
    "run_zeroshot",
    "run_zeroshot_segmentation",
]
