"""What a CLIP does without training: classification and segmentation by prompts, retrieval."""

from cliptex.zeroshot.classify import classifier_weights, run_zeroshot
from cliptex.zeroshot.encode import ZeroShotOutcome
from cliptex.zeroshot.prompts import IMAGENET_TEMPLATES, PLAYROOM_TEMPLATES, SHORT_TEMPLATES
from cliptex.zeroshot.retrieve import run_retrieval
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
