"""Reading a frozen encoder once per picture, and keeping what was read."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cliptex.console import say
from cliptex.data.cache import ByteBudgetCache
from cliptex.data.transforms import View, view_image
from cliptex.labels.kinds import Box
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import ProbeConfig

WHOLE = View(Box(), False)
# Features by (encoder's fingerprint, how they were read, picture's digest). Sharing one among
# the probes of a model spends each picture's forward pass once, however many sets it is in.
FeatureMemory = ByteBudgetCache


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


@dataclass(frozen=True)
class PictureFeatures:
    """`dense` (C, h, w) and `pooled` (P,) of one picture; `dense` is None where not asked for."""

    dense: Tensor | None
    pooled: Tensor


class FeatureReader:
    """Features of pictures of any size, squashed to one square resolution; kept on the CPU."""

    def __init__(
        self,
        encoder: FrozenEncoder,
        config: ProbeConfig,
        *,
        fingerprint: str,
        memory: FeatureMemory | None = None,
        dense: bool = True,
    ) -> None:
        self.encoder = encoder
        self.config = config
        self.dense = dense
        self.dtype = getattr(torch, config.feature_dtype)
        self._memory = memory
        how = (config.resolution, config.precision, config.feature_dtype, dense)
        self._key = (fingerprint, *how)

    def read(self, images: Sequence[np.ndarray]) -> list[PictureFeatures]:
        """Features of (H_i, W_i, 3) uint8 pictures, in their order."""
        side = self.config.resolution
        resized = [view_image(image, WHOLE, (side, side)) for image in images]
        if self._memory is None:
            return self._forward(resized)
        keys = [(*self._key, hashlib.blake2b(image.tobytes()).digest()) for image in resized]
        found: list[PictureFeatures | None] = [self._memory.get(key) for key in keys]
        missing = [i for i, features in enumerate(found) if features is None]
        for i, features in zip(missing, self._forward([resized[i] for i in missing]), strict=True):
            found[i] = features
            self._memory.put(keys[i], features, _bytes_of(features))
        return [features for features in found if features is not None]

    def _forward(self, resized: list[np.ndarray]) -> list[PictureFeatures]:
        read: list[PictureFeatures] = []
        for start in range(0, len(resized), self.config.extract_batch):
            batch = np.stack(resized[start : start + self.config.extract_batch])
            device = self.encoder.device
            images = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float() / 255
            bf16 = self.config.precision == "bf16"
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                features = self.encoder(images)  # of (B, 3, r, r)
            pooled = features.pooled.float().cpu()
            maps = self._cast(features.maps[max(features.maps)]).cpu() if self.dense else None
            for i in range(len(batch)):
                read.append(PictureFeatures(None if maps is None else maps[i], pooled[i]))
        return read

    def _cast(self, maps: Tensor) -> Tensor:
        cast = maps.to(self.dtype)
        if not torch.isfinite(cast).all():
            raise ValueError(
                f"features reach {maps.float().abs().max():.3g}, which {self.dtype} cannot hold; "
                "set feature_dtype to float32"
            )
        return cast


def _bytes_of(features: PictureFeatures) -> int:
    tensors = [t for t in (features.dense, features.pooled) if t is not None]
    return sum(t.numel() * t.element_size() for t in tensors)


class Space:
    """Empty arrays: in memory up to `budget` bytes, beyond it in files of `folder`.

    The files have no names once they are mapped, so that nothing is left of them whenever and
    however the process ends.
    """

    def __init__(self, folder: Path | None, budget: int) -> None:
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        self._left = budget

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> Tensor:
        """An uninitialised tensor of `shape`; `what` it is for is said where it goes to a file.

        ValueError where the disk has no room for it.
        """
        count = int(np.prod(shape))
        size = count * dtype.itemsize
        if size <= self._left:
            self._left -= size
            return torch.empty(shape, dtype=dtype)
        self._folder.mkdir(parents=True, exist_ok=True)
        say(f"{what}: {size / 2**30:.2f} GiB in {self._folder}, until the end")
        descriptor, name = tempfile.mkstemp(prefix="cliptex-probe-", dir=self._folder)
        try:
            _reserve(descriptor, size, self._folder, what)
            return torch.from_file(name, shared=True, size=count, dtype=dtype).view(shape)
        finally:
            os.close(descriptor)
            os.unlink(name)


def _reserve(descriptor: int, size: int, folder: Path, what: str) -> None:
    """Take the blocks of a file now: a mapped hole that a full disk cannot fill ends the process.

    ValueError where they are not there.
    """
    free = shutil.disk_usage(folder).free
    try:
        if size <= free:
            os.posix_fallocate(descriptor, 0, size)
            return
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    raise ValueError(
        f"{folder}: {what} need {size / 2**30:.2f} GiB, {free / 2**30:.2f} are free; name a folder "
        "with more room (--scratch, or --features where these are kept), or lower --resolution"
    )
