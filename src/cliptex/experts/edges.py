"""Edges by the Sobel operator: the smallest expert, and the example of adding one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.labels.kinds import ScalarField

LARGEST = 4 * 255 * 2**0.5  # of the gradient's length: a kernel's positive weights sum up to 4


class SobelEdges:
    """Length of the brightness gradient as a share of the largest there can be, in [0, 1]."""

    spec = ExpertSpec(
        name="sobel-edges",
        kind=ScalarField("edge strength"),
        source="Sobel operator on the mean of the colours",
        revision="1",
        weights_sha256="",
        licence="no weights",
    )

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Images (H, W, 3) uint8 -> labels (H, W) float32."""
        return [Prediction(_edges(image)) for image in images]


def _edges(image: np.ndarray) -> np.ndarray:
    from scipy.ndimage import sobel  # a quarter of a second to import

    gray = image.astype(np.float32).mean(2)
    return np.hypot(sobel(gray, axis=0), sobel(gray, axis=1)) / np.float32(LARGEST)
