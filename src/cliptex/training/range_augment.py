"""RangeAugment (Mehta et al. 2022): brightness, contrast and noise in ranges that are learnt.

Every image gets a magnitude drawn evenly between a low and a high end, which are parameters of the
network; a loss draws the images' PSNR to a target that falls over the run, so that augmentation
grows with training. Formulas and starting values are those of the authors' library for CLIP.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ALPHA = 100.0
LARGEST_MSE = 255.0**2
# What is changed -> lower and upper bound of the low end, of the high end, and where they start
# (before the sigmoid that keeps them within the bounds).
RANGES = {
    "brightness": ((0.1, 0.9, 0.5), (1.1, 10.0, 1.5)),
    "contrast": ((0.1, 0.9, 0.5), (1.1, 10.0, 1.5)),
    "noise": ((0.0, 5e-5, 0.0), (1e-4, 1.0, 0.1)),
}


def mse_of(psnr: float) -> float:
    """Mean squared error of pixels in 0 to 255 at a PSNR in dB: 255^2 / 10^(PSNR / 10)."""
    return LARGEST_MSE / 10 ** (psnr / 10)


class RangeAugment(nn.Module):
    """Augments images while training and keeps the loss of the last ones.

    psnr: target at the first and at the last step, in dB.

    Attributes:
        target: mean squared error aimed at now, on the scale of 0 to 255; see `set_progress`.
        loss: () of the images of the last call; None before one, and in evaluation mode.
    """

    def __init__(self, psnr: tuple[float, float]) -> None:
        super().__init__()
        self._ends = (mse_of(psnr[0]), mse_of(psnr[1]))
        self.target = self._ends[0]
        self.loss: Tensor | None = None
        self.low = nn.ParameterDict({n: _scalar(low[2]) for n, (low, _) in RANGES.items()})
        self.high = nn.ParameterDict({n: _scalar(high[2]) for n, (_, high) in RANGES.items()})

    def set_progress(self, step: int, steps: int) -> None:
        """Move the target: half a cosine, in mean squared error, from the first to the last step.

        So does the authors' library for CLIP (its schedules there are iteration-based), over two
        more steps.
        """
        first, last = self._ends
        share = step / max(1, steps - 1)
        self.target = last + (first - last) * (1 + math.cos(math.pi * share)) / 2

    def ends(self, name: str) -> tuple[Tensor, Tensor]:
        """() low and () high end of the magnitudes of `name`."""
        (low, high, _), (least, most, _) = RANGES[name]
        return (
            low + (high - low) * torch.sigmoid(self.low[name]),
            least + (most - least) * torch.sigmoid(self.high[name]),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> the same shape and range; as they are in evaluation.

        The three changes come in random order, each to a random half of the images.
        """
        if not self.training:
            self.loss = None
            return images
        changed, names = images, list(RANGES)
        for place in torch.randperm(len(names)).tolist():
            rows = torch.randperm(len(images))[: max(1, len(images) // 2)].to(images.device)
            part = self._change(names[place], changed[rows])
            changed = changed.index_copy(0, rows, part)
        changed = changed.clamp(0, 1)
        self.loss = self._loss(images, changed)
        return changed

    def _change(self, name: str, images: Tensor) -> Tensor:
        low, high = self.ends(name)
        drawn = torch.rand(len(images), 1, 1, 1, device=images.device)
        magnitude = low + (high - low) * drawn  # (B, 1, 1, 1)
        if name == "brightness":
            return images * magnitude
        if name == "contrast":
            mean = images.mean((2, 3), keepdim=True)  # of each colour
            return mean + (images - mean) * magnitude
        return images + torch.randn_like(images) * magnitude

    def _loss(self, images: Tensor, changed: Tensor) -> Tensor:
        """() mean over images of 100 / 255^2 smooth-L1(MSE, target MSE), both in 0 to 255^2."""
        errors = (255 * (changed - images)).square().mean((1, 2, 3))  # (B,)
        target = torch.full_like(errors, self.target)
        return F.smooth_l1_loss(errors, target) * (ALPHA / LARGEST_MSE)


def _scalar(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value))
