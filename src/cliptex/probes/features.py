"""Reading a frozen encoder once per picture, and keeping what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from cliptex.console import track
from cliptex.data.cache import ByteBudgetCache
from cliptex.data.transforms import View, view_image
from cliptex.labels.kinds import Box
from cliptex.models.config import Precision
from cliptex.models.device import computed_in
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import ProbeConfig

WHOLE = View(Box(), False)
TRANSFORM = "squashed, antialiased bilinear"
T = TypeVar("T")


class FrozenEncoderChanged(RuntimeError):
    """A probed encoder's parameters or buffers differ from what they were before the probe."""


@contextmanager
def proven_frozen(encoder: FrozenEncoder) -> Iterator[str]:
    """Yield the encoder's fingerprint; FrozenEncoderChanged if it is another one at the end."""
    before = encoder.fingerprint()
    yield before
    after = encoder.fingerprint()
    if after != before:
        raise FrozenEncoderChanged(
            f"the encoder changed while it was probed: sha256 {before} before, {after} after; "
            "its result would be worthless (is a layer updating buffers in its forward pass?)"
        )


class Memory(Protocol):
    """Features of pictures by `address`: what a `FeatureReader` need not read again.

    storage: how they are kept; None as they are given.
    """

    @property
    def storage(self) -> str | None: ...

    def get(self, key: str) -> Tensor | None:
        """What `keep` gave, or None."""
        ...

    def keep(self, key: str, features: Tensor) -> Tensor:
        """Keep the features of a picture, if there is room; as `get` will give them."""
        ...

    def expect(self, name: str, count: int, features: Tensor) -> None:
        """ValueError where there is no room for `count` pictures of a set, each like `features`."""
        ...

    def protocol(self) -> dict[str, object]:
        """What rows say of features that were kept here."""
        ...


class FeatureMemory:
    """Features in memory, up to `budget` bytes; what comes later is not kept.

    Sharing one among the probes of a model spends each picture's forward pass once, however many
    sets and seeds it is in.
    """

    storage = None

    def __init__(self, budget: int) -> None:
        self._cache = ByteBudgetCache(budget)

    @property
    def used(self) -> int:
        """Bytes."""
        return self._cache.used

    def get(self, key: str) -> Tensor | None:
        return self._cache.get(key)

    def keep(self, key: str, features: Tensor) -> Tensor:
        self._cache.put(key, features, features.numel() * features.element_size())
        return features

    def expect(self, name: str, count: int, features: Tensor) -> None:
        """Nothing: a memory that is full does no harm."""

    def protocol(self) -> dict[str, object]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Address:
    """What features depend on beside the picture: its digest is the name they are kept under."""

    fingerprint: str
    dense: bool
    resolution: int
    precision: str
    storage: str

    def of(self, image: np.ndarray) -> str:
        """40 hexadecimal digits for a picture (r, r, 3) uint8 as the encoder is given it."""
        facts = [self.fingerprint, "last map" if self.dense else "pooled", self.resolution]
        text = repr([*facts, TRANSFORM, self.precision, self.storage])
        digest = hashlib.blake2b(text.encode(), digest_size=20)
        digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()


class FeatureReader:
    """What linear heads read of pictures of any size, squashed to one square resolution.

    The last map (C, h, w) in the configuration's `feature_dtype`, or (`dense` False) the pooled
    features (P, 1, 1) in float32; on the CPU.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        config: ProbeConfig,
        *,
        fingerprint: str,
        memory: Memory | None = None,
        dense: bool = True,
    ) -> None:
        self.config = config
        self.dtype = getattr(torch, config.feature_dtype) if dense else torch.float32
        self._encoder = encoder
        self._dense = dense
        self._memory = memory
        kept = None if memory is None else memory.storage
        self._address = Address(
            fingerprint=fingerprint,
            dense=dense,
            resolution=config.resolution,
            precision=config.precision,
            storage=str(self.dtype) if kept is None else kept,
        )

    def stream(
        self, name: str, count: int, picture: Callable[[int], tuple[np.ndarray, T]], label: str
    ) -> Iterator[tuple[int, T, Tensor]]:
        """(index, what `picture` gives beside the image, features) of `count` pictures in order."""
        size = self.config.extract_batch
        for start in track(range(0, count, size), label=label):
            pairs = [picture(i) for i in range(start, min(start + size, count))]
            read = self.read([image for image, _ in pairs], expected=(name, count))
            for i, ((_, rest), features) in enumerate(zip(pairs, read, strict=True), start=start):
                yield i, rest, features

    def read(
        self, images: Sequence[np.ndarray], expected: tuple[str, int] | None = None
    ) -> list[Tensor]:
        """Features of (H_i, W_i, 3) uint8 pictures; `expected` is the set they are of, and its
        number of pictures."""
        side = self.config.resolution
        resized = [view_image(image, WHOLE, (side, side)) for image in images]
        memory = self._memory
        if memory is None:
            return [self._cast(features) for features in self._encode(resized)]
        keys = [self._address.of(image) for image in resized]
        found = [memory.get(key) for key in keys]
        missing = [i for i, features in enumerate(found) if features is None]
        for i, features in zip(missing, self._encode([resized[i] for i in missing]), strict=True):
            if expected is not None:
                memory.expect(*expected, features)
            given = self._cast(features) if memory.storage is None else features
            found[i] = memory.keep(keys[i], given)
        return [self._cast(features) for features in found if features is not None]

    def _encode(self, resized: list[np.ndarray]) -> list[Tensor]:
        """Float32, on the CPU."""
        read: list[Tensor] = []
        for start in range(0, len(resized), self.config.extract_batch):
            batch = resized[start : start + self.config.extract_batch]
            precision = self.config.precision
            features = encode(self._encoder, batch, dense=self._dense, precision=precision)
            read += features.cpu().unbind()
        return read

    def _cast(self, features: Tensor) -> Tensor:
        cast = features.to(self.dtype)
        if not torch.isfinite(cast).all():
            raise ValueError(
                f"features reach {features.abs().max():.3g}, which {self.dtype} cannot hold; "
                "set feature_dtype to float32"
            )
        return cast

    def protocol(self) -> dict[str, object]:
        """What rows say of the features."""
        kept = {} if self._memory is None else self._memory.protocol()
        return {"feature_dtype": str(self.dtype).removeprefix("torch."), **kept}


def encode(
    encoder: FrozenEncoder, images: Sequence[np.ndarray], *, dense: bool, precision: Precision
) -> Tensor:
    """The last map of (r, r, 3) uint8 pictures, or their pooled features as maps of one cell.

    (B, C, h, w) or (B, P, 1, 1) float32, on the encoder's device. Where its stride does not divide
    r, the encoder sees them at the nearest multiple.
    """
    device = encoder.device
    batch = torch.from_numpy(np.stack(images)).to(device)  # (B, r, r, 3)
    batch = batch.permute(0, 3, 1, 2).float() / 255  # (B, 3, r, r)
    with computed_in(precision, device):
        features = encoder(batch)
    read = features.maps[max(features.maps)] if dense else features.pooled[:, :, None, None]
    return read.float().contiguous()
