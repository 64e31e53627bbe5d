"""From an instance detector's output to a class map: the one compositor of the project.

The paper gives no rule. Ours: instances whose score reaches a threshold are painted from the
highest score down, each on the pixels where its mask reaches a threshold and nothing has been
painted yet (among equal scores the earlier instance wins). Unpainted pixels are background, class
0, or ignored. Detectors' own post-processing often lets later instances paint over better ones.
"""

from __future__ import annotations

import numpy as np

from cliptex.experts.protocol import Prediction, Unlabelled

DETECTOR_SCORE = "detector score; 1 on background"
"""What the confidence of `predict_instances` means, for `ExpertSpec.confidence`."""


def unlabelled_id(unlabelled: Unlabelled, ignore: int) -> int:
    """The class id of pixels without an instance; goes to `ExpertSpec.thresholds`."""
    return ignore if unlabelled == "ignore" else 0


def composite_instances(
    masks: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    *,
    size: tuple[int, int],
    score_threshold: float = 0.5,
    mask_threshold: float = 0.5,
    unlabelled: Unlabelled = "background",
    ignore: int = 255,
) -> np.ndarray:
    """Paint instances into one class map.

    Args:
        masks: (n, H, W) float in [0, 1]; a pixel belongs to an instance at >= mask_threshold.
        classes: (n,) integer from 1.
        scores: (n,); instances at >= score_threshold count, NaN never does.
        size: (H, W), which also says what to return where n = 0.
        score_threshold: belongs into `ExpertSpec.thresholds`, as does the next.
        mask_threshold: see masks.
        unlabelled: whether pixels without an instance are background (0) or `ignore`.
        ignore: 255, or 65535 where classes need 16 bits.

    Returns:
        (H, W) uint8, uint16 where `ignore` is 65535.

    Raises:
        ValueError: shapes disagree, or a class is below 1 or not below `ignore`.
    """
    _check(masks, classes, scores, size, ignore)
    winners = _winners(masks, scores, score_threshold, mask_threshold)
    return _class_map(winners, classes, unlabelled, ignore)


def predict_instances(
    masks: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    *,
    size: tuple[int, int],
    score_threshold: float = 0.5,
    mask_threshold: float = 0.5,
    unlabelled: Unlabelled = "background",
    ignore: int = 255,
) -> Prediction:
    """`composite_instances` with its confidence and the number of boxes of each class.

    Arguments and errors are `composite_instances`'. The confidence is the score of the instance
    that painted the pixel; 1 where none did: a detector's scores say nothing about background,
    and as a weight of the loss 1 leaves those pixels as they were.
    """
    _check(masks, classes, scores, size, ignore)
    winners = _winners(masks, scores, score_threshold, mask_threshold)
    confidence = np.ones(size, dtype=np.float32)
    painted = winners >= 0
    confidence[painted] = scores[winners[painted]]
    return Prediction(
        _class_map(winners, classes, unlabelled, ignore),
        confidence=confidence,
        instances=count_instances(classes, scores, score_threshold),
    )


def count_instances(
    classes: np.ndarray, scores: np.ndarray, score_threshold: float = 0.5
) -> dict[int, int]:
    """Boxes per class id (n,) whose score (n,) reaches the threshold, hidden ones among them."""
    ids, counts = np.unique(classes[scores >= score_threshold], return_counts=True)
    return {int(number): int(count) for number, count in zip(ids, counts, strict=True)}


def _check(
    masks: np.ndarray, classes: np.ndarray, scores: np.ndarray, size: tuple[int, int], ignore: int
) -> None:
    count = len(scores)
    if classes.shape != (count,) or masks.shape != (count, *size):
        raise ValueError(
            f"instances do not agree: masks {masks.shape}, classes {classes.shape}, "
            f"scores {scores.shape} for an image of {size}"
        )
    if count and not (classes.min() >= 1 and classes.max() < ignore):
        raise ValueError(f"instance classes must lie in [1, {ignore}), got {np.unique(classes)}")


def _winners(
    masks: np.ndarray, scores: np.ndarray, score_threshold: float, mask_threshold: float
) -> np.ndarray:
    """Index of the instance that owns each pixel, -1 without one; (H, W) intp."""
    winners = np.full(masks.shape[1:], -1, dtype=np.intp)
    for index in np.argsort(-scores, kind="stable"):
        if not scores[index] >= score_threshold:
            break  # sorted: all that follow are lower, or NaN, which sorts last
        winners[(masks[index] >= mask_threshold) & (winners < 0)] = index
    return winners


def _class_map(
    winners: np.ndarray, classes: np.ndarray, unlabelled: Unlabelled, ignore: int
) -> np.ndarray:
    """Winners (H, W) -> class ids (H, W) uint8 or uint16."""
    labels = np.full(
        winners.shape,
        unlabelled_id(unlabelled, ignore),
        dtype=np.uint8 if ignore == 255 else np.uint16,
    )
    painted = winners >= 0
    labels[painted] = classes[winners[painted]]
    return labels
