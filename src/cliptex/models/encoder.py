"""What every image encoder gives, and a proof that a probed one was left alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Features:
    """Named intermediates of one batch of images.

    Attributes:
        embedding: (B, D) in the space shared with text, not normalised.
        pooled: (B, C) before the projection; what linear classification reads.
        maps: stride -> (B, C, H / stride, W / stride).
    """

    embedding: Tensor
    pooled: Tensor
    maps: dict[int, Tensor]


class ImageEncoder(nn.Module):
    """Base of the image encoders: checks sizes, normalises colours, calls `features`.

    Images are (B, 3, H, W) float32 in [0, 1], RGB; the encoder applies its own mean and std.
    H and W may be any multiples of `stride`.

    Attributes:
        stride: pixels per cell of the dense map, which is `Features.maps[stride]`. Encoders with
            stages add finer maps, down to stride 4, for the levels of detectors.
        channels: channels of that map.
        pooled_channels: channels of `Features.pooled`.
        embed_dim: length of `Features.embedding`.
        image_size: side (pixels) that the weights were trained at.
    """

    mean: Tensor
    std: Tensor
    stride: int
    channels: int
    pooled_channels: int
    embed_dim: int
    image_size: int

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Features:
        """Encode `images` (B, 3, H, W) float in [0, 1]; ValueError if the stride does not fit."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}")
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"images of {height}x{width} do not divide into cells of {self.stride} pixels: "
                f"resize both sides to multiples of {self.stride}"
            )
        return self.features((images - self.mean) / self.std)

    def features(self, images: Tensor) -> Features:
        """Features of colour-normalised images; each kind of tower has its own."""
        raise NotImplementedError


def one_side(size: Any, what: str) -> int:
    """The side of a square `size` in an open_clip description; ValueError naming `what` if none."""
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if sides[0] != sides[1]:
        raise ValueError(f"vision_cfg.{what} must be square, not {sides}")
    return sides[0]


def nearest_side(side: int, stride: int) -> int:
    """The multiple of `stride` nearest to `side`, at least one: a side that an encoder can take."""
    return max(1, round(side / stride)) * stride


def fit_to_stride(images: Tensor, stride: int) -> Tensor:
    """(B, 3, H, W) float at the `nearest_side` of both sides; as it is where the stride fits.

    Resized as pictures are everywhere here: bilinear, antialiased where they shrink.
    """
    height, width = images.shape[-2:]
    size = (nearest_side(height, stride), nearest_side(width, stride))
    if size == (height, width):
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def fingerprint(module: nn.Module) -> str:
    """sha256 over names, dtypes, shapes and bytes of all parameters and buffers, as hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def architecture(module: nn.Module) -> str:
    """What a module computes besides its weights, as text: classes and plain attributes.

    Strides, dilations, kinds of activation and rules of resizing are no parameters, and two
    encoders of equal weights may differ in them. Numbers, texts, enumerations, dataclasses of
    these, types and functions count; tensors and other objects do not.
    """
    lines = []
    for name, part in module.named_modules():
        values = {key: _plain(value) for key, value in vars(part).items() if key != "training"}
        known = sorted(f"{key}={value}" for key, value in values.items() if value is not None)
        lines.append(f"{name}: {type(part).__qualname__}({', '.join(known)})")
    return "\n".join(lines)


def _plain(value: object) -> str | None:
    """A text that is the same in every process; None for what has no such text."""
    if value is None or isinstance(value, bool | int | float | str | Enum | torch.dtype):
        return repr(value)
    if isinstance(value, tuple | list):
        parts = [_plain(part) for part in value]
        return None if None in parts else f"[{', '.join(map(str, parts))}]"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__qualname__}{_plain(list(vars(value).items()))}"
    return getattr(value, "__qualname__", None)  # of types and functions


class FrozenEncoder:
    """An encoder that a probe may read and cannot change: evaluation mode, no gradient.

    Anything that maps images (B, 3, H, W) in [0, 1] to `Features` and has `stride` and `channels`
    can be wrapped. Pictures whose sides the stride does not divide are seen at the nearest multiple
    (`fit_to_stride`). `fingerprint` before and after a probe proves that nothing moved, batch
    statistics included, and tells encoders apart whose features differ.
    """

    def __init__(self, encoder: nn.Module) -> None:
        for needed in ("stride", "channels"):
            if not isinstance(getattr(encoder, needed, None), int):
                raise ValueError(f"{type(encoder).__name__} has no integer attribute {needed!r}")
        self.encoder = encoder.eval().requires_grad_(False)
        self.stride: int = encoder.stride  # pyright: ignore[reportAttributeAccessIssue]
        self.channels: int = encoder.channels  # pyright: ignore[reportAttributeAccessIssue]
        # Read once: some towers of timm note the size of what they saw last.
        self._architecture = architecture(encoder)

    @property
    def image_size(self) -> int | None:
        """Side that the weights were trained at, where the encoder says so."""
        return getattr(self.encoder, "image_size", None)

    def __call__(self, images: Tensor) -> Features:
        """Features of (B, 3, H, W) float images in [0, 1], of any size, without gradient.

        ValueError where the map is not what `stride` and `channels` say, and where something is not
        finite: no head, rank or cache may hide that.
        """
        self.encoder.eval()
        call: Callable[[Tensor], Features] = self.encoder
        seen = fit_to_stride(images, self.stride)
        with torch.no_grad():
            features = call(seen)
        self._check_map(features, seen)
        for read in (features.pooled, *features.maps.values()):
            if not torch.isfinite(read).all():
                raise ValueError(
                    "the encoder's features are not finite: its weights have diverged (probe an "
                    "earlier checkpoint), or its file is damaged"
                )
        return features

    def _check_map(self, features: Features, images: Tensor) -> None:
        batch, _, height, width = images.shape
        told = (batch, self.channels, height // self.stride, width // self.stride)
        shapes = {stride: tuple(dense.shape) for stride, dense in features.maps.items()}
        if shapes.get(self.stride) != told:
            raise ValueError(
                f"{type(self.encoder).__name__} says stride {self.stride} and channels "
                f"{self.channels}, so that maps[{self.stride}] should be {told} for images of "
                f"{height}x{width}, but its maps are {shapes}: correct its attributes or its maps"
            )

    def side(self, side: int) -> int:
        """The side in pixels at which pictures of `side` are seen."""
        return nearest_side(side, self.stride)

    def protocol(self, side: int) -> dict[str, object]:
        """What a row says of how pictures of `side` pixels were read, JSON-able."""
        return {"encoder_resolution": self.side(side), "encoder_stride": self.stride}

    @property
    def device(self) -> torch.device:
        """Where the encoder's parameters are."""
        found = next(self.encoder.parameters(), None)
        return torch.device("cpu") if found is None else found.device

    def fingerprint(self) -> str:
        """sha256 over all parameters and buffers (`fingerprint`) and over the architecture."""
        both = f"{self._architecture}\n{fingerprint(self.encoder)}"
        return hashlib.sha256(both.encode()).hexdigest()


class PixelEncoder(ImageEncoder):
    """Per cell of `stride` pixels: mean and deviation of red, green and blue, x, y, x², y², xy.

    x and y run from -1 to 1 over the cells' centres. `pooled` and `embedding` are the means over
    the cells. What a probe scores on this is due to colours and places alone.
    """

    def __init__(self, stride: int, image_size: int = 224) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.stride = stride
        self.image_size = image_size
        self.channels = self.pooled_channels = self.embed_dim = 11
        # Among the buffers, so that encoders of different cells have different fingerprints.
        self.register_buffer("cell", torch.tensor(stride), persistent=False)

    def features(self, images: Tensor) -> Features:
        """(B, 3, H, W) colour-normalised -> map (B, 11, H / stride, W / stride)."""
        mean = F.avg_pool2d(images, self.stride)  # (B, 3, h, w)
        square = F.avg_pool2d(images**2, self.stride)
        deviation = (square - mean**2).clamp(min=0).sqrt()
        places = _places(mean.shape[2], mean.shape[3]).to(mean)
        cells = torch.cat([mean, deviation, places.expand(len(mean), -1, -1, -1)], dim=1)
        pooled = cells.mean((2, 3))
        return Features(pooled, pooled, {self.stride: cells})


def _places(height: int, width: int) -> Tensor:
    """(5, height, width): x, y, x², y², xy of the cells' centres."""
    y, x = ((2 * torch.arange(n) + 1) / n - 1 for n in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, x**2, y**2, x * y])
