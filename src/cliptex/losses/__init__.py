"""Losses of the paper, one formula each, as pure functions of tensors.

Every loss over labels takes a `weight` per pixel, (B, H, W) float in [0, 1], and is then the
weighted mean sum(w l) / sum(w) over the pixels that count. A weight of ones changes nothing.
"""

from __future__ import annotations

from cliptex.losses.cells import (
    DenseTargets,
    cell_cross_entropy,
    cell_l1,
    class_histogram,
    nearest_cells,
)
from cliptex.losses.contrastive import contrastive, sigmoid_contrastive
from cliptex.losses.pixels import (
    KAPPA_MIN,
    angmf_split,
    nll_angmf,
    scale_shift_invariant,
)

__all__ = [
    "KAPPA_MIN",
    "DenseTargets",
    "angmf_split",
    "cell_cross_entropy",
    "cell_l1",
    "class_histogram",
    "contrastive",
    "nearest_cells",
    "nll_angmf",
    "scale_shift_invariant",
    "sigmoid_contrastive",
]
