"""NLL-AngMF, the paper's expert on surface normals, with the weights that Bae et al. released.

`scannet.pt` has BatchNorm in its decoder, `nyu.pt` GroupNorm; the file itself says which. The
authors recommend the former for one's own images: the latter learnt from the centre of NYU's
images and is unreliable towards the borders.

The network is that of Bae et al. 2021, "Estimating and exploiting the aleatoric uncertainty in
surface normal estimation" (ICCV), at test time: every pixel is refined, nothing is sampled.
Parameter names are those of the released checkpoints. The encoder is timm's `tf_` variant, whose
BatchNorm eps and asymmetric padding the weights were trained with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.experts.hub import NYU
from cliptex.experts.protocol import MAX_SIDE, ExpertSpec, Prediction
from cliptex.experts.torch_expert import (
    Adapter,
    Outputs,
    Placement,
    TorchExpert,
    load_exactly,
    read_weights,
)
from cliptex.files import sha256_file
from cliptex.labels.codecs import fitted_size
from cliptex.labels.kinds import UnitVector

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


MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CONFIDENCE_SIDE = 64
CONFIDENCE = "1 - expected angular error / 90 degrees"
SOURCE = "https://github.com/baegwangbin/surface_normal_uncertainty"
LICENCE = "MIT (code); ScanNet terms (weights)"
LEARNT_FROM: dict[Norm, tuple[str, ...]] = {"batch": ("scannet",), "group": NYU}
NAMES: dict[Norm, str] = {"batch": "nll-angmf-scannet", "group": "nll-angmf-nyu"}


@dataclass(frozen=True)
class NllAngmfSetup:
    """What to build and at which input size (H, W) to run; the defaults are the authors'.

    `form.norm` is taken from the weight file.
    """

    form: NllAngmfForm = field(default_factory=NllAngmfForm)
    size: tuple[int, int] = (480, 640)


RELEASED = NllAngmfSetup()


def load_nll_angmf(
    weights: Path,
    *,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    setup: NllAngmfSetup = RELEASED,
) -> TorchExpert:
    """The expert from a released file, or from a plain state dict of the same names.

    Labels are `UnitVector` at the image's aspect; the network's frame is the labels' own.
    Confidence is 1 - expected angular error / (pi / 2), see `confidence_from_kappa`.
    Raises FileNotFoundError, and ValueError where a tensor is missing, unexpected or misshapen.
    """
    weights = Path(weights)
    state = read_weights(weights)
    norm = norm_of(state)
    network = NllAngmf(replace(setup.form, norm=norm))
    load_exactly(network, state, weights)
    spec = ExpertSpec(
        name=NAMES[norm],
        kind=UnitVector(),
        source=SOURCE,
        revision=weights.stem,
        weights_sha256=sha256_file(weights),
        licence=LICENCE,
        preprocessing={
            "size": list(setup.size),
            "resize": "bilinear, aspect not kept",
            "mean": list(MEAN),
            "std": list(STD),
        },
        learnt_from=LEARNT_FROM[norm],
        confidence=CONFIDENCE,
    )
    adapter = Adapter(lambda image: to_input(image, setup.size), forward, read)
    return TorchExpert(spec, network, adapter, placement)


def norm_of(state: Mapping[str, Tensor]) -> Norm:
    """Which norm the decoder of a checkpoint has: only BatchNorm keeps running means."""
    running = any(k.startswith("decoder.") and k.endswith(".running_mean") for k in state)
    return "batch" if running else "group"


def to_input(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (3, *size) float32, squashed and normalised as ImageNet's."""
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, dtype=np.float32) / 255
    pixels = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def forward(network: NllAngmf, images: Tensor) -> list[Outputs]:
    """Normals (3, h, w) and confidence (h', w'), at most 64 wide or high, of each image."""
    normals, kappa = network(images)
    confidence = confidence_from_kappa(kappa)  # (B, h, w)
    small = fitted_size((kappa.shape[-2], kappa.shape[-1]), CONFIDENCE_SIDE)
    reduced = F.adaptive_avg_pool2d(confidence, small)  # (B, h', w')
    return [{"normals": n, "confidence": c} for n, c in zip(normals, reduced, strict=True)]


def confidence_from_kappa(kappa: Tensor) -> Tensor:
    """1 - expected angular error / (pi / 2), in [0, 1]: 0 for a uniform density (kappa = 0)."""
    return (1 - expected_error(kappa.float()) / (math.pi / 2)).clamp(0, 1)


def read(outputs: Outputs, size: tuple[int, int]) -> Prediction:
    """The label at the image's aspect, no larger than the network's map and 512 pixels."""
    kind = UnitVector()
    normals = kind.check(outputs["normals"].permute(1, 2, 0).numpy())  # (h, w, 3)
    longest = min(max(normals.shape[:2]), MAX_SIDE)
    label = kind.resize(normals, fitted_size(size, longest))
    return Prediction(label, confidence=outputs["confidence"].numpy())
