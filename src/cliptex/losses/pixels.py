"""Losses between predictions and labels of one size, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def scale_shift_invariant(
    prediction: Tensor, target: Tensor, valid: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """Mean |s p + t - y| over the valid pixels of the batch, (s, t) the least squares per image.

    The form of ZoeDepth's ScaleAndShiftInvariantLoss, without gradient-matching term:
    s = cov(p, y) / var(p) and t = mean(y) - s mean(p) solve the 2x2 normal equations; s = t = 0
    where they are singular (constant prediction). The solution is written with centred moments,
    which in float32 keep the digits that the determinant of raw sums loses. The gradient flows
    through s and t. A weight counts in the least squares as it does in the mean.

    Args:
        prediction: (B, H, W), in any affine image of the target's space.
        target: (B, H, W), say disparity in 1/m; any value where it is not valid.
        valid: (B, H, W) bool.
        weight: (B, H, W) in [0, 1]; the mean is then the weighted one.

    Returns:
        () mean; 0, still in the graph, if no pixel is valid.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        p = at_least_float32(prediction).flatten(1)  # (B, H * W)
        mask = valid.flatten(1)
        w = mask.to(p.dtype)
        if weight is not None:
            w = w * weight.flatten(1).to(p.dtype)
        y = torch.where(mask, target.flatten(1).to(p.dtype), 0)
        n = not_zero(w.sum(1, keepdim=True))
        mean_p = (w * p).sum(1, keepdim=True) / n
        mean_y = (w * y).sum(1, keepdim=True) / n
        dp, dy = p - mean_p, y - mean_y
        variance = (w * dp.square()).sum(1, keepdim=True)
        # A constant image has exactly no variance but for the rounding of its mean.
        solvable = variance > n * (8 * torch.finfo(p.dtype).eps * mean_p.detach()).square()
        s = (w * dp * dy).sum(1, keepdim=True) / torch.where(solvable, variance, 1)
        s = torch.where(solvable, s, 0)
        t = torch.where(solvable, mean_y - s * mean_p, 0)
        return (w * (s * p + t - y).abs()).sum() / not_zero(w.sum())


KAPPA_MIN = 0.01


def angmf_split(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw head output (B, 4, ...) -> unit normals (B, 3, ...) and concentrations kappa (B, ...).

    n = v / (|v| + 1e-10) and kappa = ELU(k) + 1 + 0.01 (Bae et al. 2021, public code).
    """
    raw = at_least_float32(raw)
    vector, k = raw[:, :3], raw[:, 3]
    normals = vector / (torch.linalg.vector_norm(vector, dim=1, keepdim=True) + 1e-10)
    return normals, F.elu(k) + 1 + KAPPA_MIN


def nll_angmf(
    prediction: Tensor, target: Tensor, valid: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of the angular von Mises-Fisher density, mean over valid pixels.

    p(n | mu, kappa) = (kappa^2 + 1) exp(-kappa a) / (2 pi (1 + exp(-kappa pi))), a the angle
    between n and mu (Bae et al. 2021, equation 6), hence, less the constant log(2 pi),
    L = -log(kappa^2 + 1) + kappa a + log(1 + exp(-kappa pi)).

    Nothing is clamped or left out: where the public codes drop cosines above 0.999 or clamp them
    below 1 - 1e-7 because the derivative of acos is infinite at 1, the angle here is
    atan2(|n x y|, n . y). It is exact near 0 and pi, and its gradient is bounded by 1 / |v|; at
    0 and pi exactly, where the angle has a kink, the gradient is 0.

    Args:
        prediction: (B, 4, H, W) raw, see `angmf_split`.
        target: (B, 3, H, W) unit normals; anything where not valid.
        valid: (B, H, W) bool.
        weight: (B, H, W) in [0, 1]; the mean is then the weighted one.

    Returns:
        () mean; 0, still in the graph, if no pixel is valid.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        if not valid.any():
            return 0 * at_least_float32(prediction).sum()
        raw = prediction.permute(0, 2, 3, 1)[valid]  # (N, 4)
        normals, kappa = angmf_split(raw)
        truth = target.permute(0, 2, 3, 1)[valid].to(normals.dtype)  # (N, 3)
        sine = torch.linalg.vector_norm(torch.linalg.cross(normals, truth, dim=1), dim=1)
        angle = torch.atan2(sine, (normals * truth).sum(1))  # (N,)
        loss = -torch.log1p(kappa.square()) + kappa * angle + F.softplus(-kappa * torch.pi)
        if weight is None:
            return loss.mean()
        w = weight[valid].to(loss.dtype)  # (N,)
        return (w * loss).sum() / not_zero(w.sum())


def not_zero(total: Tensor) -> Tensor:
    """1 in place of 0: a sum over nothing, divided by how much nothing counts, is 0."""
    return torch.where(total == 0, 1, total)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` as it is in single or double precision, else in single."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
