"""Losses of the paper, one formula each, as pure functions of tensors.

The dense training losses compare a head's coarse map with labels of any finer size. By definition
the map is first interpolated to the labels' size with the nearest cell (paper, section 3.1).
Nearest interpolation only repeats cells, so nothing needs to be interpolated in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class DenseTargets:
    """One task's labels of a batch, with all that is missing said explicitly.

    Attributes:
        target: (B, H, W) integer classes, or (B, C, H, W) float32.
        valid: (B, H, W) bool; pixels that say something.
        present: (B,) bool; samples that have a label at all. The others cost nothing.
    """

    target: Tensor
    valid: Tensor
    present: Tensor

    def to(self, device: torch.device | str) -> DenseTargets:
        """The same on another device."""
        return DenseTargets(
            target=self.target.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            present=self.present.to(device, non_blocking=True),
        )


def contrastive(image: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, figure 3); the L_clip of the paper's equation (1).

    Args:
        image, text: (B, D) embeddings of unit length; row i of one belongs to row i of the other.
        scale: () inverse temperature.
    """
    logits = scale * image.float() @ text.float().T  # (B, B)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def cell_cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore: int = 255, present: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of `F.interpolate(logits, (H, W), mode="nearest")` against `labels`.

    All pixels of a cell share its log-probabilities, hence with n(b, c, u) the number of pixels
    of class c in cell u:  L = -sum n(b, c, u) log p(b, c, u) / sum n.

    Args:
        logits: (B, C, h, w).
        labels: (B, H, W) of any integer type, each in [0, C) or `ignore`.
        ignore: label of pixels that cost nothing; it may lie in or out of [0, C).
        present: (B,) bool; samples where it is False cost nothing.

    Returns:
        () mean over the counted pixels; 0, still in the graph of `logits`, if there is none.
        ValueError if a label is neither a class nor `ignore`.
    """
    counts = class_histogram(labels, _shape(logits), ignore=ignore, present=present)
    log_p = F.log_softmax(_at_least_float32(logits), dim=1)
    counts = counts.to(log_p.dtype)
    return -(counts * log_p).sum() / counts.sum().clamp(min=1)


def class_histogram(
    labels: Tensor,
    shape: tuple[int, int, int, int],
    *,
    ignore: int = 255,
    present: Tensor | None = None,
) -> Tensor:
    """Pixels of each class in each cell: (B, C, h, w) int64 from `labels` (B, H, W)."""
    batch, classes, height, width = shape
    numbers = _numbers(labels, classes, ignore)
    if present is not None:
        numbers = numbers * present[:, None, None].to(numbers.dtype)
    total = batch * (classes + 1) * height * width
    index = torch.int32 if total < 2**31 else torch.int64  # half the traffic where it suffices
    cells = _flat_cells((height, width), (labels.shape[1], labels.shape[2]), labels.device)
    first = torch.arange(batch, device=labels.device, dtype=index) * (total // max(batch, 1))
    flat = numbers.to(index).mul_(height * width).add_(cells.to(index))  # (B, H, W)
    counts = flat.add_(first[:, None, None]).flatten().bincount(minlength=total)
    return counts.view(batch, classes + 1, height, width)[:, 1:]


def _numbers(labels: Tensor, classes: int, ignore: int) -> Tensor:
    """(B, H, W): 1 + class, or 0 for ignored pixels; ValueError for anything else."""
    if labels.dtype == torch.uint8 and ignore == 255 and classes < 255:
        numbers = labels + 1  # 255 wraps to 0: one vectorised pass over bytes
    else:
        wide = labels.to(torch.int64)
        numbers = torch.where(wide < 0, classes, wide).add_(1).masked_fill_(wide == ignore, 0)
    if numbers.numel() and numbers.max() > classes:
        wrong = int(labels[numbers > classes][0])
        raise ValueError(
            f"labels hold {wrong}, but the logits have {classes} classes and {ignore} is ignored: "
            f"the head does not belong to these labels"
        )
    return numbers


def cell_l1(
    prediction: Tensor, target: Tensor, valid: Tensor, *, present: Tensor | None = None
) -> Tensor:
    """Mean |p - y| of `F.interpolate(prediction, (H, W), mode="nearest")` against `target`.

    Args:
        prediction: (B, C, h, w).
        target: (B, C, H, W) float; any value, NaN too, where it is not valid.
        valid: (B, H, W) bool.
        present: (B,) bool; samples where it is False cost nothing.

    Returns:
        () mean over valid pixels and channels; 0, still in the graph, if there is none.
    """
    if present is not None:
        valid = valid & present[:, None, None]
    prediction = _at_least_float32(prediction)
    total: Tensor = _CellAbsoluteError.apply(prediction, target.to(prediction.dtype), valid)
    return total / (valid.sum() * prediction.shape[1]).clamp(min=1)


class _CellAbsoluteError(torch.autograd.Function):
    """Sum of |p(cell) - y| over valid pixels; its gradient is a sum of signs per cell.

    The signs are summed on the way forward, so that nothing of label size outlives the call.
    """

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        cells, pixels = _shape(prediction)[2:], (target.shape[2], target.shape[3])
        whole = pixels[0] % cells[0] == 0 and pixels[1] % cells[1] == 0
        if whole:  # (B, C, h, r, w, s): the cell's value is broadcast over its r x s pixels
            split = (cells[0], pixels[0] // cells[0], cells[1], pixels[1] // cells[1])
            target = target.unflatten(3, split[2:]).unflatten(2, split[:2])
            valid = valid.unflatten(2, split[2:]).unflatten(1, split[:2])
            near = prediction[:, :, :, None, :, None]
        else:
            rows, columns = _axes(cells, pixels, prediction.device)
            near = prediction.index_select(2, rows).index_select(3, columns)  # (B, C, H, W)
        difference = (near - target).masked_fill_(~valid[:, None], 0)
        total = difference.abs().sum()
        if ctx.needs_input_grad[0]:
            signs = difference.sign_()
            ctx.save_for_backward(
                signs.sum((3, 5)) if whole else _sum_cells(signs, cells)  # (B, C, h, w)
            )
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (signs,) = ctx.saved_tensors
        return signs * gradients[0], None, None


def _sum_cells(x: Tensor, cells: tuple[int, int]) -> Tensor:
    """Sum (B, C, H, W) over the pixels of each cell: (B, C, h, w), any ratio."""
    rows, columns = _axes(cells, (x.shape[2], x.shape[3]), x.device)
    x = x.new_zeros(*x.shape[:2], cells[0], x.shape[3]).index_add_(2, rows, x)
    return x.new_zeros(*x.shape[:2], *cells).index_add_(3, columns, x)


@lru_cache(maxsize=256)
def nearest_cells(cells: int, pixels: int) -> Tensor:
    """(pixels,) int64: which of `cells` each pixel reads under torch's nearest interpolation.

    In exact numbers pixel i reads cell floor(i * cells / pixels). torch multiplies in float32,
    which differs for some odd ratios, so torch is asked rather than imitated.
    """
    numbered = torch.arange(cells, dtype=torch.float64).view(1, 1, cells, 1)
    return F.interpolate(numbered, size=(pixels, 1), mode="nearest").flatten().long()


def _axes(
    cells: tuple[int, int], pixels: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    return (
        nearest_cells(cells[0], pixels[0]).to(device),
        nearest_cells(cells[1], pixels[1]).to(device),
    )


def _flat_cells(cells: tuple[int, int], pixels: tuple[int, int], device: torch.device) -> Tensor:
    """(H, W) int64: raster number of the cell that each pixel reads."""
    rows, columns = _axes(cells, pixels, device)
    return rows[:, None] * cells[1] + columns


def scale_shift_invariant(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean |s p + t - y| over the valid pixels of the batch, (s, t) the least squares per image.

    The form of ZoeDepth's ScaleAndShiftInvariantLoss, without gradient-matching term:
    s = cov(p, y) / var(p) and t = mean(y) - s mean(p) solve the 2x2 normal equations; s = t = 0
    where they are singular (constant prediction). The solution is written with centred moments,
    which in float32 keep the digits that the determinant of raw sums loses. The gradient flows
    through s and t.

    Args:
        prediction: (B, H, W), in any affine image of the target's space.
        target: (B, H, W), say disparity in 1/m; any value where it is not valid.
        valid: (B, H, W) bool.

    Returns:
        () mean; 0, still in the graph, if no pixel is valid.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        p = _at_least_float32(prediction).flatten(1)  # (B, H * W)
        mask = valid.flatten(1)
        weight = mask.to(p.dtype)
        y = torch.where(mask, target.flatten(1).to(p.dtype), 0)
        n = weight.sum(1, keepdim=True).clamp(min=1)
        mean_p = (weight * p).sum(1, keepdim=True) / n
        mean_y = y.sum(1, keepdim=True) / n
        dp, dy = weight * (p - mean_p), weight * (y - mean_y)
        variance = dp.square().sum(1, keepdim=True)
        # A constant image has exactly no variance but for the rounding of its mean.
        solvable = variance > n * (8 * torch.finfo(p.dtype).eps * mean_p.detach()).square()
        s = (dp * dy).sum(1, keepdim=True) / torch.where(solvable, variance, 1)
        s = torch.where(solvable, s, 0)
        t = torch.where(solvable, mean_y - s * mean_p, 0)
        return (weight * (s * p + t - y).abs()).sum() / weight.sum().clamp(min=1)


KAPPA_MIN = 0.01


def angmf_split(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw head output (B, 4, ...) -> unit normals (B, 3, ...) and concentrations kappa (B, ...).

    n = v / (|v| + 1e-10) and kappa = ELU(k) + 1 + 0.01 (Bae et al. 2021, public code).
    """
    raw = _at_least_float32(raw)
    vector, k = raw[:, :3], raw[:, 3]
    normals = vector / (torch.linalg.vector_norm(vector, dim=1, keepdim=True) + 1e-10)
    return normals, F.elu(k) + 1 + KAPPA_MIN


def nll_angmf(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
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

    Returns:
        () mean; 0, still in the graph, if no pixel is valid.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        if not valid.any():
            return 0 * _at_least_float32(prediction).sum()
        raw = prediction.permute(0, 2, 3, 1)[valid]  # (N, 4)
        normals, kappa = angmf_split(raw)
        truth = target.permute(0, 2, 3, 1)[valid].to(normals.dtype)  # (N, 3)
        sine = torch.linalg.vector_norm(torch.linalg.cross(normals, truth, dim=1), dim=1)
        angle = torch.atan2(sine, (normals * truth).sum(1))  # (N,)
        loss = -torch.log1p(kappa.square()) + kappa * angle + F.softplus(-kappa * torch.pi)
        return loss.mean()


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _shape(x: Tensor) -> tuple[int, int, int, int]:
    batch, channels, height, width = x.shape
    return batch, channels, height, width
