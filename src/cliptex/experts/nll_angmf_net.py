"""The network of Bae et al. 2021, "Estimating and exploiting the aleatoric uncertainty in surface
normal estimation" (ICCV), at test time: every pixel is refined, nothing is sampled.

Parameter names are those of the released checkpoints. The encoder is timm's `tf_` variant, whose
BatchNorm eps and asymmetric padding the weights were trained with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["batch", "group"]
GROUPS = 8
MIN_KAPPA = 0.01
SKIP_BLOCKS = (0, 1, 2, 4)
"""Encoder blocks whose outputs, at strides 2, 4, 8 and 16, the decoder joins again."""
STRIDE = 32
"""Both sides of the input must be multiples of it: the refinements double the 1/8 map exactly."""


@dataclass(frozen=True)
class NllAngmfForm:
    """The network's sizes; the defaults are the released networks'.

    encoder: name of a timm EfficientNet of the `tf_` family.
    features: channels of the decoder's coarsest map, halved at each of four enlargements; a
        multiple of 128 where the norm is "group".
    hidden: channels of the refining perceptrons.
    norm: "batch", or "group" (8 groups, weight-standardised convolutions).
    """

    encoder: str = "tf_efficientnet_b5"
    features: int = 2048
    hidden: int = 128
    norm: Norm = "batch"


class WeightStandardisedConv(nn.Conv2d):
    """Convolution with weights of mean 0 and deviation 1 per output channel (Qiao et al. 2019).

    The deviation is the unbiased one, plus 1e-5.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = centred.flatten(1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return self._conv_forward(input, centred / deviation, self.bias)


class UpBlock(nn.Module):
    """Enlarge a map to its skip connection's size, join the two, convolve twice."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self._net = nn.Sequential(*_conv(inputs, outputs, norm), *_conv(outputs, outputs, norm))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, h, w), (B, S, H, W) -> (B, outputs, H, W)."""
        return self._net(torch.cat([_resize(x, (skip.shape[-2], skip.shape[-1])), skip], dim=1))


class Decoder(nn.Module):
    """From the encoder's five maps to normals and kappa at 1/8, 1/4, 1/2 and full resolution."""

    def __init__(self, bottleneck: int, skips: list[int], form: NllAngmfForm) -> None:
        super().__init__()
        widths = [form.features >> step for step in range(5)]
        self.conv2 = nn.Conv2d(bottleneck, form.features, 1)
        self.up1 = UpBlock(widths[0] + skips[3], widths[1], form.norm)
        self.up2 = UpBlock(widths[1] + skips[2], widths[2], form.norm)
        self.up3 = UpBlock(widths[2] + skips[1], widths[3], form.norm)
        self.up4 = UpBlock(widths[3] + skips[0], widths[4], form.norm)
        self.out_conv_res8 = nn.Conv2d(widths[2], 4, 3, padding=1)
        self.out_conv_res4 = _perceptron(widths[2] + 4, form.hidden)
        self.out_conv_res2 = _perceptron(widths[3] + 4, form.hidden)
        self.out_conv_res1 = _perceptron(widths[4] + 4, form.hidden)

    def forward(self, skips: list[Tensor], bottleneck: Tensor) -> list[Tensor]:
        """Maps at strides 2, 4, 8, 16, and 32 -> (B, 4, ., .) at strides 8, 4, 2, 1."""
        x = self.up1(self.conv2(bottleneck), skips[3])
        eighth = self.up2(x, skips[2])
        quarter = self.up3(eighth, skips[1])
        half = self.up4(quarter, skips[0])
        found = [normalise(self.out_conv_res8(eighth))]
        for features, refine in (
            (eighth, self.out_conv_res4),
            (quarter, self.out_conv_res2),
            (half, self.out_conv_res1),
        ):
            found.append(_refine(features, found[-1], refine))
        return found


class NllAngmf(nn.Module):
    """Images -> normals and their concentration kappa."""

    def __init__(self, form: NllAngmfForm = NllAngmfForm()) -> None:
        super().__init__()
        encoder: Any = timm.create_model(form.encoder, pretrained=False, num_classes=0)
        skips = [stage["num_chs"] for stage in encoder.feature_info[: len(SKIP_BLOCKS)]]
        self.encoder = nn.Module()
        self.encoder.original_model = encoder
        self.decoder = Decoder(encoder.conv_head.out_channels, skips, form)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) -> normals (B, 3, H, W) of length 1, kappa (B, H, W).

        Raises ValueError where a side is not a multiple of 32.
        """
        height, width = images.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise ValueError(f"sides must be multiples of {STRIDE}, got {height} x {width}")
        last = self.decoder(*self.encode(images))[-1]  # (B, 4, H, W)
        return last[:, :3], last[:, 3]

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The maps at strides 2, 4, 8, 16, and the last convolution's raw output at 32.

        The norm and activation behind that convolution are in the file but not in use.
        """
        encoder: Any = self.encoder.original_model
        x = encoder.bn1(encoder.conv_stem(images))
        skips = []
        for number, block in enumerate(encoder.blocks):
            x = block(x)
            if number in SKIP_BLOCKS:
                skips.append(x)
        return skips, encoder.conv_head(x)


def normalise(raw: Tensor) -> Tensor:
    """(B, 4, ...) -> float32 xyz / (length + 1e-10), and kappa = elu(k) + 1 + 0.01.

    In float32 because the small constant vanishes in half precision.
    """
    vectors, kappa = raw.float().split((3, 1), dim=1)
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return torch.cat([vectors / (length + 1e-10), F.elu(kappa) + 1.0 + MIN_KAPPA], dim=1)


def expected_error(kappa: Tensor) -> Tensor:
    """Expected angle in radians between the true and the predicted normal, in (0, pi / 2].

    Of the angular von Mises-Fisher density of Bae et al. 2021, (kappa^2 + 1) exp(-kappa angle) /
    (2 pi (1 + exp(-kappa pi))): 2 kappa / (kappa^2 + 1) + pi exp(-kappa pi) / (1 + exp(-kappa pi)).
    """
    tail = math.pi * torch.sigmoid(-kappa * math.pi)
    return 2 * kappa / (kappa.square() + 1) + tail


def _conv(inputs: int, outputs: int, norm: Norm) -> tuple[nn.Module, nn.Module, nn.Module]:
    if norm == "batch":
        return nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU()
    conv = WeightStandardisedConv(inputs, outputs, 3, padding=1)
    return conv, nn.GroupNorm(GROUPS, outputs), nn.LeakyReLU()


def _perceptron(inputs: int, hidden: int) -> nn.Sequential:
    """The same three hidden layers at every pixel."""
    return nn.Sequential(
        nn.Conv1d(inputs, hidden, 1),
        nn.ReLU(),
        nn.Conv1d(hidden, hidden, 1),
        nn.ReLU(),
        nn.Conv1d(hidden, hidden, 1),
        nn.ReLU(),
        nn.Conv1d(hidden, 4, 1),
    )


def _refine(features: Tensor, previous: Tensor, refine: nn.Module) -> Tensor:
    """A prediction of twice the resolution, from features (B, C, h, w) and the last (B, 4, h, w).

    Returns (B, 4, 2h, 2w).
    """
    size = (2 * features.shape[-2], 2 * features.shape[-1])
    joined = torch.cat([_resize(features, size), _resize(previous, size)], dim=1)
    pixels = refine(joined.flatten(2))  # (B, 4, 2h * 2w)
    return normalise(pixels).unflatten(2, size)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
