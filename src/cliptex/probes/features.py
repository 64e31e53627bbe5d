"""What heads read of a frozen encoder: computed now, remembered in memory, or kept on disk.

    FOLDER/ab/abcdef....safetensors     map (C, h, w) float16 or int8, scale, error (2,)

The name of a file in a `FeatureStore` is the digest of the encoder's fingerprint, the layer,
resolution, transform, precision, storage type and the picture's pixels, so one folder serves any
number of encoders and sets. Every file is whole or absent. Stored maps know no augmentation.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cliptex.console import say, track
from cliptex.data.pictures import ByteBudgetCache
from cliptex.files import write_atomic
from cliptex.models.config import Precision
from cliptex.models.device import computed_in
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import ProbeConfig

TRANSFORM = "squashed, antialiased bilinear"
StorageType = Literal["float16", "int8"]
REMEDIES = "set `features_dtype` to int8, or do not store features (leave out `features`)"
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


class Memory(Protocol):
    """Features of pictures by key: what a `FeatureReader` need not compute again.

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

    def expect(self, name: str, count: int, left: int, features: Tensor) -> None:
        """ValueError where there is no room for `left` more pictures of a set of `count`, each like
        `features`."""
        ...

    def protocol(self) -> dict[str, object]:
        """What rows say of features that were kept here."""
        ...


class FeatureMemory:
    """Features in memory, up to `budget` bytes; what comes later is not kept.

    Sharing one among the probes of a model spends each picture's forward pass once, however many
    sets it is in.
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

    def expect(self, name: str, count: int, left: int, features: Tensor) -> None:
        """Nothing: a memory that is full does no harm."""

    def protocol(self) -> dict[str, object]:
        return {}


class FeatureReader:
    """What linear heads read of pictures: the last map (C, h, w) in `dtype`, or (`dense` False)
    the pooled features (P, 1, 1) in float32; on the CPU."""

    def __init__(
        self,
        encoder: FrozenEncoder,
        config: ProbeConfig,
        *,
        dense: bool,
        fingerprint: str,
        memory: Memory | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype if dense else torch.float32
        self._encoder, self._config, self._dense = encoder, config, dense
        self._memory = memory
        kept = None if memory is None else memory.storage
        facts = [fingerprint, "last map" if dense else "pooled", config.resolution, TRANSFORM]
        storage = str(self.dtype) if kept is None else kept
        self._address = repr([*facts, config.precision, storage]).encode()

    def key(self, image: np.ndarray) -> str:
        """40 hexadecimal digits for a picture (r, r, 3) uint8 as the encoder is given it."""
        digest = hashlib.blake2b(self._address, digest_size=20)
        digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()

    def stream(
        self, name: str, count: int, picture: Callable[[int], tuple[np.ndarray, T]], label: str
    ) -> Iterator[tuple[np.ndarray, T, Tensor]]:
        """Image, what `picture` gives beside it, and features of `count` pictures, in order."""
        size = self._config.extract_batch
        for start in track(range(0, count, size), label=label):
            pairs = [picture(i) for i in range(start, min(start + size, count))]
            images = [image for image, _ in pairs]
            read = self.read(images, expected=(name, count, count - start))
            for (image, rest), features in zip(pairs, read, strict=True):
                yield image, rest, features

    def read(
        self, images: Sequence[np.ndarray], expected: tuple[str, int, int] | None = None
    ) -> list[Tensor]:
        """Features of (r, r, 3) uint8 pictures, at most `extract_batch` of them; `expected` is the
        set they are of, its number of pictures, and how many of these may still come."""
        memory = self._memory
        if memory is None:
            return [self._cast(features) for features in self._encode(images)]
        keys = [self.key(image) for image in images]
        found = [memory.get(key) for key in keys]
        missing = [i for i, features in enumerate(found) if features is None]
        for i, features in zip(missing, self._encode([images[i] for i in missing]), strict=True):
            if expected is not None:
                memory.expect(*expected, features)
            given = self._cast(features) if memory.storage is None else features
            found[i] = memory.keep(keys[i], given)
        return [self._cast(features) for features in found if features is not None]

    def _encode(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Float32, on the CPU."""
        if not images:
            return []
        precision = self._config.precision
        features = encode(self._encoder, images, dense=self._dense, precision=precision)
        return list(features.cpu().unbind())

    def _cast(self, features: Tensor) -> Tensor:
        cast = features.to(self.dtype)
        if not torch.isfinite(cast).all():
            raise ValueError(
                f"features reach {features.abs().max():.3g}, which {self.dtype} cannot hold; "
                "set `feature_dtype` to float32"
            )
        return cast

    def protocol(self) -> dict[str, object]:
        """What rows say of the features."""
        kept = {} if self._memory is None else self._memory.protocol()
        return {"feature_dtype": str(self.dtype).removeprefix("torch."), **kept}


@dataclass(frozen=True)
class FeatureStore:
    """A folder of features.

    dtype: float16, or int8 with one scale per channel and picture (its largest value / 127), and
        one per picture for pooled features.
    budget: bytes that the maps of one set may take; a forecast above it is refused.
    """

    folder: Path
    dtype: StorageType = "float16"
    budget: int = 20 << 30

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def write(self, key: str, features: Tensor) -> None:
        """Store (C, h, w) float32 with the squared error of doing so and its squared norm."""
        packed = pack(features, self.dtype)
        lost = (unpack(packed) - features).double().square().sum()
        packed["error"] = torch.stack([lost, features.double().square().sum()])  # (2,) float64
        write_atomic(self.path(key), save(packed))

    def read(self, key: str) -> Tensor:
        """The features (C, h, w) float32; ValueError names a file that is damaged."""
        with self._open(key) as file:
            names = [name for name in file.keys() if name != "error"]  # noqa: SIM118 - no dict
            return unpack({name: file.get_tensor(name) for name in names})

    def error(self, key: str) -> Tensor:
        """Squared error of storing and squared norm, (2,) float64."""
        with self._open(key) as file:
            return file.get_tensor("error")

    def forecast(self, name: str, count: int, left: int, features: Tensor) -> None:
        """Say what a set of `count` pictures takes, each like `features` (C, h, w).

        ValueError where the budget is less, or the free disk for the `left` that may be missing.
        """
        each = sum(t.numel() * t.element_size() for t in pack(features, self.dtype).values())
        total, shape = each * count, "x".join(map(str, features.shape))
        say(
            f"features of {name}: {count} maps of {shape} {self.dtype}, {total / 2**20:.1f} MiB in "
            f"{self.folder}"
        )
        if total > self.budget:
            raise ValueError(
                f"{self.folder}: {total} bytes of features exceed the {self.budget} that are "
                f"allowed; raise `features_gib`, {REMEDIES}"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if each * left > (free := shutil.disk_usage(self.folder).free):
            raise ValueError(
                f"{self.folder}: {each * left} bytes of features are to be stored, {free} are "
                f"free; make room, {REMEDIES}"
            )

    @contextmanager
    def _open(self, key: str) -> Iterator[Any]:
        try:
            with safe_open(self.path(key), framework="pt") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.path(key)}: {error}; remove the file and run again") from error


def pack(features: Tensor, dtype: StorageType) -> dict[str, Tensor]:
    """(C, h, w) float32 as stored tensors; ValueError where float16 cannot hold a value.

    A pooled vector (C, 1, 1) has one scale: one per channel would be larger than its values.
    """
    if dtype == "int8":
        dims = (1, 2) if features[0].numel() > 1 else (0, 1, 2)
        scale = features.abs().amax(dims, keepdim=True).clamp(min=1e-30) / 127  # (C or 1, 1, 1)
        return {"map": (features / scale).round().to(torch.int8), "scale": scale}
    cast = features.to(torch.float16)
    if not torch.isfinite(cast).all():
        raise ValueError(f"features reach {features.abs().max():.3g}: float16 cannot hold them")
    return {"map": cast}


def unpack(packed: dict[str, Tensor]) -> Tensor:
    """(C, h, w) float32 of stored tensors."""
    values = packed["map"].float()
    return values * packed["scale"] if "scale" in packed else values


class StoredMemory:
    """A store as the `Memory` of a reader: a probe that was killed reads it again.

    The error of storing, for rows, is over all pictures that were asked for.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self._lost: list[Tensor] = []
        self._expected: set[tuple[str, int]] = set()

    @property
    def storage(self) -> str:
        return self.store.dtype

    def get(self, key: str) -> Tensor | None:
        if not self.store.path(key).exists():
            return None
        self._lost.append(self.store.error(key))
        return self.store.read(key)

    def keep(self, key: str, features: Tensor) -> Tensor:
        self.store.write(key, features.float())
        kept = self.get(key)
        assert kept is not None
        return kept

    def expect(self, name: str, count: int, left: int, features: Tensor) -> None:
        """Say the size once per set; ValueError where the store's budget or the disk is less."""
        if (name, count) not in self._expected:
            self.store.forecast(name, count, left, features)
            self._expected.add((name, count))

    def protocol(self) -> dict[str, object]:
        error, norm = torch.stack(self._lost).sum(0).tolist()  # squared
        return {
            "features": f"stored as {self.store.dtype}, no augmentation",
            "storage_error": (error / max(norm, 1e-300)) ** 0.5,  # relative RMS
        }


class MmapBuffer:
    """Empty arrays: in memory up to `budget` bytes, beyond it in memory-mapped files of `folder`.

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
        f"{folder}: {what} need {size / 2**30:.2f} GiB, {free / 2**30:.2f} are free; set `scratch` "
        "(`features` where these are kept) to a folder with more room, or lower `resolution`"
    )
