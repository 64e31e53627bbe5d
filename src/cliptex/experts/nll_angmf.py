"""NLL-AngMF, the paper's expert on surface normals, with the weights that Bae et al. released.

`scannet.pt` has BatchNorm in its decoder, `nyu.pt` GroupNorm; the file itself says which. The
authors recommend the former for one's own images: the latter learnt from the centre of NYU's
images and is unreliable towards the borders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cliptex.experts.nll_angmf_net import NllAngmf, NllAngmfForm, Norm, expected_error
from cliptex.experts.postprocess import MAX_SIDE
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.experts.provenance import NYU
from cliptex.experts.torch_expert import Adapter, Outputs, Placement, TorchExpert
from cliptex.experts.weights import load_exactly, read_weights
from cliptex.files import sha256_file
from cliptex.labels.codecs import fitted_size
from cliptex.labels.kinds import UnitVector

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
