"""Losses between a head's coarse map and labels of any finer size, without interpolating.

By definition the map is first interpolated to the labels' size with the nearest cell (paper,
section 3.1). Nearest interpolation only repeats cells, so nothing needs to be interpolated in
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.losses.pixels import at_least_float32, not_zero


@dataclass(frozen=True, kw_only=True)
class DenseTargets:
    """One task's labels of a batch, with all that is missing said explicitly.

    Attributes:
        target: (B, H, W) integer classes, or (B, C, H, W) float32.
        valid: (B, H, W) bool; pixels that say something.
        present: (B,) bool; samples that have a label at all. The others cost nothing.
        weight: (B, H, W) float32 in [0, 1], how far each label is to be trusted; None = all alike.
    """

    target: Tensor
    valid: Tensor
    present: Tensor
    weight: Tensor | None = None

    def to(self, device: torch.device | str) -> DenseTargets:
        """The same on another device."""
        weight = self.weight
        return DenseTargets(
            target=self.target.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            present=self.present.to(device, non_blocking=True),
            weight=None if weight is None else weight.to(device, non_blocking=True),
        )

    def counted(self) -> Tensor:
        """() summed weight of the pixels that count: what the losses' means divide by."""
        mask = self.valid & self.present[:, None, None]
        return mask.sum() if self.weight is None else self.weight.masked_fill(~mask, 0).sum()


def cell_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore: int = 255,
    present: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of `F.interpolate(logits, (H, W), mode="nearest")` against `labels`.

    All pixels of a cell share its log-probabilities, hence with n(b, c, u) the number (or the
    summed weight) of pixels of class c in cell u:  L = -sum n(b, c, u) log p(b, c, u) / sum n.

    Args:
        logits: (B, C, h, w).
        labels: (B, H, W) of any integer type, each in [0, C) or `ignore`.
        ignore: label of pixels that cost nothing; it may lie in or out of [0, C).
        present: (B,) bool; samples where it is False cost nothing.
        weight: (B, H, W) in [0, 1]; the mean is then the weighted one.

    Returns:
        () mean over the counted pixels; 0, still in the graph of `logits`, if there is none.
        ValueError if a label is neither a class nor `ignore`.
    """
    counts = class_histogram(labels, _shape(logits), ignore=ignore, present=present, weight=weight)
    log_p = F.log_softmax(at_least_float32(logits), dim=1)
    counts = counts.to(log_p.dtype)
    return -(counts * log_p).sum() / not_zero(counts.sum())


def class_histogram(
    labels: Tensor,
    shape: tuple[int, int, int, int],
    *,
    ignore: int = 255,
    present: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Pixels of each class in each cell: (B, C, h, w) int64 from `labels` (B, H, W).

    With `weight` (B, H, W) the sum of the pixels' weights, in its dtype.
    """
    batch, classes, height, width = shape
    numbers = _numbers(labels, classes, ignore)
    if present is not None:
        numbers = numbers * present[:, None, None].to(numbers.dtype)
    total = batch * (classes + 1) * height * width
    index = torch.int32 if total < 2**31 else torch.int64  # half the traffic where it suffices
    cells = _flat_cells((height, width), (labels.shape[1], labels.shape[2]), labels.device)
    first = torch.arange(batch, device=labels.device, dtype=index) * (total // max(batch, 1))
    flat = numbers.to(index).mul_(height * width).add_(cells.to(index))  # (B, H, W)
    flat = flat.add_(first[:, None, None]).flatten()
    counts = flat.bincount(None if weight is None else weight.flatten(), minlength=total)
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
    prediction: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    present: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean |p - y| of `F.interpolate(prediction, (H, W), mode="nearest")` against `target`.

    Args:
        prediction: (B, C, h, w).
        target: (B, C, H, W) float; any value, NaN too, where it is not valid.
        valid: (B, H, W) bool.
        present: (B,) bool; samples where it is False cost nothing.
        weight: (B, H, W) in [0, 1]; the mean is then the weighted one.

    Returns:
        () mean over valid pixels and channels; 0, still in the graph, if there is none.
    """
    if present is not None:
        valid = valid & present[:, None, None]
    prediction = at_least_float32(prediction)
    target = target.to(prediction.dtype)
    if weight is None:
        counted = valid.sum()
    else:
        weight = weight.to(prediction.dtype).masked_fill(~valid, 0)
        counted = weight.sum()
    total: Tensor = _CellAbsoluteError.apply(prediction, target, valid, weight)
    return total / not_zero(counted * prediction.shape[1])


class _CellAbsoluteError(torch.autograd.Function):
    """Sum of w |p(cell) - y| over valid pixels; its gradient is a sum of w sign(p - y) per cell.

    The signs are summed on the way forward, so that nothing of label size outlives the call.
    """

    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None
    ) -> Tensor:
        cells, pixels = _shape(prediction)[2:], (target.shape[2], target.shape[3])
        whole = _even(cells[0], pixels[0]) and _even(cells[1], pixels[1])
        if whole:  # (B, C, h, r, w, s): the cell's value is broadcast over its r x s pixels
            split = (cells[0], pixels[0] // cells[0], cells[1], pixels[1] // cells[1])
            target = target.unflatten(3, split[2:]).unflatten(2, split[:2])
            valid = valid.unflatten(2, split[2:]).unflatten(1, split[:2])
            if weight is not None:
                weight = weight.unflatten(2, split[2:]).unflatten(1, split[:2])
            near = prediction[:, :, :, None, :, None]
        else:
            rows, columns = _axes(cells, pixels, prediction.device)
            near = prediction.index_select(2, rows).index_select(3, columns)  # (B, C, H, W)
        difference = (near - target).masked_fill_(~valid[:, None], 0)
        error = difference.abs()
        total = (error if weight is None else error.mul_(weight[:, None])).sum()
        if ctx.needs_input_grad[0]:
            signs = difference.sign_()
            if weight is not None:
                signs.mul_(weight[:, None])
            ctx.save_for_backward(
                signs.sum((3, 5)) if whole else _sum_cells(signs, cells)  # (B, C, h, w)
            )
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (signs,) = ctx.saved_tensors
        return signs * gradients[0], None, None, None


def _sum_cells(x: Tensor, cells: tuple[int, int]) -> Tensor:
    """Sum (B, C, H, W) over the pixels of each cell: (B, C, h, w), any ratio."""
    rows, columns = _axes(cells, (x.shape[2], x.shape[3]), x.device)
    x = x.new_zeros(*x.shape[:2], cells[0], x.shape[3]).index_add_(2, rows, x)
    return x.new_zeros(*x.shape[:2], *cells).index_add_(3, columns, x)


@lru_cache(maxsize=256)
def nearest_cells(cells: int, pixels: int) -> Tensor:
    """(pixels,) int64: which of `cells` each pixel reads under torch's nearest interpolation.

    In exact numbers pixel i reads cell floor(i * cells / pixels). torch multiplies in float32 where
    the map is float32 or less (in float64 other cells come out for 2 of 164 pixels, and for some
    other odd ratios), so torch is asked, in float32, rather than imitated.
    """
    numbered = torch.arange(cells, dtype=torch.float32).view(1, 1, cells, 1)
    return F.interpolate(numbered, size=(pixels, 1), mode="nearest").flatten().long()


@lru_cache(maxsize=256)
def _even(cells: int, pixels: int) -> bool:
    """Whether every cell is read by as many pixels; in float32 not for 2 cells and 164 pixels."""
    numbered = torch.arange(cells)
    each = pixels // cells
    return pixels % cells == 0 and torch.equal(
        nearest_cells(cells, pixels), numbered.repeat_interleave(each)
    )


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


def _shape(x: Tensor) -> tuple[int, int, int, int]:
    batch, channels, height, width = x.shape
    return batch, channels, height, width
