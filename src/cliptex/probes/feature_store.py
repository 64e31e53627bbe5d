"""Features on disk, addressed by what they were made from, as a bank's source of batches.

    FOLDER/ab/abcdef....safetensors     map (C, h, w) float16 or int8, scale (C, 1, 1), error (2,)

A file's name is the digest of the encoder's fingerprint, the layer, resolution, transform,
precision, storage type and the picture's pixels, so one folder serves any number of encoders and
sets. Every file is whole or absent. Stored maps know no augmentation.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cliptex.console import say, track
from cliptex.files import write_atomic
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.examples import Examples
from cliptex.probes.features import Space
from cliptex.probes.sources import Draw, FeatureBatch, ahead, encode

Storage = Literal["float16", "int8"]
TRANSFORM = "squashed, antialiased bilinear"
TARGETS_IN_MEMORY = 1 << 30  # bytes of targets; more goes to a memory-mapped file


@dataclass(frozen=True)
class FeatureStore:
    """A folder of features.

    dtype: float16, or int8 with one scale per channel and picture (its largest value / 127).
    budget: bytes that the maps of one set may take; a forecast above it is refused.
    """

    folder: Path
    dtype: Storage = "float16"
    budget: int = 20 << 30

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def write(self, key: str, features: Tensor) -> None:
        """Store (C, h, w) float32 with the squared error of doing so and its squared norm."""
        packed = pack(features, self.dtype)
        lost = (unpack(packed) - features).double().square().sum()
        packed["error"] = torch.stack([lost, features.double().square().sum()])  # (2,) float64
        write_atomic(self.path(key), save(packed))

    def read(self, key: str) -> dict[str, Tensor]:
        """What `write` stored; ValueError names a file that is damaged."""
        try:
            return load_file(self.path(key))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.path(key)}: {error}; remove the file and run again") from error


@contextmanager
def stored_source(
    store: FeatureStore,
    encoder: FrozenEncoder,
    examples: Examples,
    config: BankConfig,
    *,
    fingerprint: str,
) -> Iterator[StoredSource]:
    """A source whose targets lie in memory, or beyond a limit in a file that vanishes at the end.

    ValueError for a configuration with augmentation, and where the forecast of the size exceeds
    the store's budget or the free disk.
    """
    with tempfile.TemporaryDirectory(prefix="cliptex-targets-") as folder:
        space = Space(Path(folder), TARGETS_IN_MEMORY)
        yield StoredSource(store, encoder, examples, config, fingerprint=fingerprint, space=space)


def pack(features: Tensor, dtype: Storage) -> dict[str, Tensor]:
    """(C, h, w) float32 as stored tensors; ValueError where float16 cannot hold a value."""
    if dtype == "int8":
        scale = features.abs().amax((1, 2), keepdim=True).clamp(min=1e-30) / 127  # (C, 1, 1)
        return {"map": (features / scale).round().to(torch.int8), "scale": scale}
    cast = features.to(torch.float16)
    if not torch.isfinite(cast).all():
        raise ValueError(f"features reach {features.abs().max():.3g}: float16 cannot hold them")
    return {"map": cast}


def unpack(packed: dict[str, Tensor]) -> Tensor:
    """(C, h, w) float32 of stored tensors."""
    values = packed["map"].float()
    return values * packed["scale"] if "scale" in packed else values


class StoredSource:
    """Maps of whole pictures from a store, which is filled first with what it lacks.

    Targets, which take part in no address, are kept in `space`.
    """

    def __init__(
        self,
        store: FeatureStore,
        encoder: FrozenEncoder,
        examples: Examples,
        config: BankConfig,
        *,
        fingerprint: str,
        space: Space,
    ) -> None:
        if config.augmentation is not None:
            raise ValueError(
                "augmentation: stored features cannot be augmented; set it to None "
                "(--no-augmentation), or do not store features (leave out --features)"
            )
        self._store = store
        self._encoder = encoder
        self._examples = examples
        self._config = config
        self._keys: list[str] = []
        self._targets = torch.empty(0)
        self._lost = torch.zeros(2, dtype=torch.float64)
        facts = [fingerprint, "last map" if examples.task.dense else "pooled", config.resolution]
        self._facts = repr([*facts, TRANSFORM, config.precision, store.dtype])
        self._fill(space)

    def stream(self, plan: Iterable[Sequence[Draw]]) -> Iterator[FeatureBatch]:
        device = self._encoder.device
        for read in ahead(plan, self._read, self._config.workers):
            maps = torch.stack([features for _, features in read]).to(device)
            rows = torch.tensor([row for row, _ in read])
            yield FeatureBatch(maps, self._targets[rows].to(device))

    def _read(self, draw: Draw) -> tuple[int, Tensor]:
        return draw[0], unpack(self._store.read(self._keys[draw[0]]))

    def protocol(self) -> dict[str, object]:
        lost, norm = self._lost.tolist()
        return {
            "features": f"stored as {self._store.dtype}, no augmentation",
            "storage_error": (lost / max(norm, 1e-300)) ** 0.5,  # relative RMS over the whole set
        }

    def _fill(self, space: Space) -> None:
        config, examples = self._config, self._examples
        image, target = examples.plain(0)
        self._forecast(self._encode([image])[0])
        self._targets = space.empty((len(examples), *target.shape), examples.task.dtype)
        label = f"features of {examples.name}"
        for start in track(range(0, len(examples), config.extract_batch), label=label):
            stop = min(start + config.extract_batch, len(examples))
            pairs = [examples.plain(i) for i in range(start, stop)]
            keys = [self._key(image) for image, _ in pairs]
            missing = [i for i, key in enumerate(keys) if not self._store.path(key).exists()]
            if missing:
                maps = self._encode([pairs[i][0] for i in missing])
                for i, features in zip(missing, maps, strict=True):
                    self._store.write(keys[i], features)
            for i, (key, (_, target)) in enumerate(zip(keys, pairs, strict=True)):
                self._lost += self._store.read(key)["error"]
                label_map = torch.from_numpy(np.ascontiguousarray(target))
                self._targets[start + i] = label_map.to(examples.task.dtype)
            self._keys += keys

    def _encode(self, images: Sequence[np.ndarray]) -> Tensor:
        dense, precision = self._examples.task.dense, self._config.precision
        return encode(self._encoder, images, dense=dense, precision=precision).cpu()

    def _key(self, image: np.ndarray) -> str:
        digest = hashlib.blake2b(self._facts.encode(), digest_size=20)
        digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()

    def _forecast(self, features: Tensor) -> None:
        """Say how much the set will take; ValueError where that is too much."""
        each = sum(t.numel() * t.element_size() for t in pack(features, self._store.dtype).values())
        total = each * len(self._examples)
        place = self._store.folder
        shape = "x".join(map(str, features.shape))
        say(
            f"features of {self._examples.name}: {len(self._examples)} maps of {shape} "
            f"{self._store.dtype}, {total / 2**20:.1f} MiB in {place}"
        )
        place.mkdir(parents=True, exist_ok=True)
        limit = min(self._store.budget, shutil.disk_usage(place).free)
        if total > limit:
            raise ValueError(
                f"{place}: {total} bytes of features exceed the {limit} that are allowed and free; "
                "raise the budget (--features-gib), use int8, or leave features out (--features)"
            )
