"""From an instance detector's output to a class map: the one compositor of the project.

The paper gives no rule. Ours: instances whose score reaches a threshold are painted from the
highest score down, each on the pixels where its mask reaches a threshold and nothing has been
painted yet (among equal scores the earlier instance wins). Unpainted pixels are background, class
0, or ignored. Detectors' own post-processing often lets later instances paint over better ones.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Unlabelled = Literal["background", "ignore"]


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
    count = len(scores)
    if classes.shape != (count,) or masks.shape != (count, *size):
        raise ValueError(
            f"instances do not agree: masks {masks.shape}, classes {classes.shape}, "
            f"scores {scores.shape} for an image of {size}"
        )
    if count and not (classes.min() >= 1 and classes.max() < ignore):
        raise ValueError(f"instance classes must lie in [1, {ignore}), got {np.unique(classes)}")
    labels = np.full(
        size,
        ignore if unlabelled == "ignore" else 0,
        dtype=np.uint8 if ignore == 255 else np.uint16,
    )
    empty = np.ones(size, dtype=bool)
    for index in np.argsort(-scores, kind="stable"):
        if not scores[index] >= score_threshold:
            break  # sorted: all that follow are lower, or NaN, which sorts last
        painted = (masks[index] >= mask_threshold) & empty
        labels[painted] = classes[index]
        empty &= ~painted
    return labels
