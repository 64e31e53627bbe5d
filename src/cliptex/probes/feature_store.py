"""Features on disk, addressed by what they were made from: a bank's source of batches, and what
the fast recipe remembers.

    FOLDER/ab/abcdef....safetensors     map (C, h, w) float16 or int8, scale, error (2,)

A file's name is the digest of the encoder's fingerprint, the layer, resolution, transform,
precision, storage type and the picture's pixels, so one folder serves any number of encoders and
sets. Every file is whole or absent. Stored maps know no augmentation.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cliptex.console import say, track
from cliptex.files import write_atomic
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.examples import Examples
from cliptex.probes.features import Address, encode
from cliptex.probes.sources import Draw, FeatureBatch, ahead
from cliptex.probes.space import Space

Storage = Literal["float16", "int8"]
TARGETS_IN_MEMORY = 1 << 30  # bytes of targets; more goes to a memory-mapped file
REMEDIES = "use int8 (--features-dtype), or do not store features (leave out --features)"


@dataclass(frozen=True)
class FeatureStore:
    """A folder of features.

    dtype: float16, or int8 with one scale per channel and picture (its largest value / 127), and
        one per picture for pooled features.
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

    def read(self, key: str) -> Tensor:
        """The features (C, h, w) float32; ValueError names a file that is damaged."""
        with self._open(key) as file:
            names = [name for name in file.keys() if name != "error"]  # noqa: SIM118 - no dict
            return unpack({name: file.get_tensor(name) for name in names})

    def error(self, key: str) -> Tensor:
        """Squared error of storing and squared norm, (2,) float64."""
        with self._open(key) as file:
            return file.get_tensor("error")

    def forecast(self, name: str, count: int, features: Tensor) -> int:
        """Bytes of one picture; says those of all `count` like `features` (C, h, w).

        ValueError where the budget is less.
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
                f"allowed; raise the budget (--features-gib), {REMEDIES}"
            )
        return each

    @contextmanager
    def _open(self, key: str) -> Iterator[Any]:
        try:
            with safe_open(self.path(key), framework="pt") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.path(key)}: {error}; remove the file and run again") from error


def pack(features: Tensor, dtype: Storage) -> dict[str, Tensor]:
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


def stored_facts(store: FeatureStore, lost: Tensor) -> dict[str, object]:
    """What rows say of stored features; `lost` (2,) are summed squared errors and norms."""
    error, norm = lost.tolist()
    return {
        "features": f"stored as {store.dtype}, no augmentation",
        "storage_error": (error / max(norm, 1e-300)) ** 0.5,  # relative RMS
    }


class StoredMemory:
    """A store as the `features.Memory` of a reader: a probe that was killed reads it again.

    The error of storing is over all pictures that were asked for.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._lost = torch.zeros(2, dtype=torch.float64)
        self._expected: set[tuple[str, int]] = set()

    @property
    def storage(self) -> str:
        return self._store.dtype

    def get(self, key: str) -> Tensor | None:
        if not self._store.path(key).exists():
            return None
        self._lost += self._store.error(key)
        return self._store.read(key)

    def keep(self, key: str, features: Tensor) -> Tensor:
        self._store.write(key, features.float())
        kept = self.get(key)
        assert kept is not None
        return kept

    def expect(self, name: str, count: int, features: Tensor) -> None:
        """Say the size once per set; ValueError where the store's budget is less."""
        if (name, count) not in self._expected:
            self._store.forecast(name, count, features)
            self._expected.add((name, count))

    def protocol(self) -> dict[str, object]:
        return stored_facts(self._store, self._lost)


class StoredSource:
    """Maps of whole pictures from a store, which is filled first with what it lacks.

    Targets, which take part in no address, lie in memory, or beyond a limit in a file without a
    name. ValueError for a configuration with augmentation, and where the forecast of the size
    exceeds the store's budget or what is missing exceeds the free disk.
    """

    def __init__(
        self,
        store: FeatureStore,
        encoder: FrozenEncoder,
        examples: Examples,
        config: BankConfig,
        *,
        fingerprint: str,
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
        self._address = Address(
            fingerprint=fingerprint,
            dense=examples.task.dense,
            resolution=config.resolution,
            precision=config.precision,
            storage=store.dtype,
        )
        store.folder.mkdir(parents=True, exist_ok=True)
        image, target = examples.plain(0)
        each = store.forecast(examples.name, len(examples), self._encode([image])[0])
        space = Space(store.folder, TARGETS_IN_MEMORY)
        shape, what = (len(examples), *target.shape), f"labels of {examples.name}"
        self._targets = space.empty(shape, examples.task.dtype, what)
        self._keys = self._addresses()
        self._fill(each)
        self._lost = torch.stack([store.error(key) for key in self._keys]).sum(0)  # (2,)

    def stream(self, plan: Iterable[Sequence[Draw]]) -> Iterator[FeatureBatch]:
        device = self._encoder.device
        for read in ahead(plan, self._read, self._config.workers):
            maps = torch.stack([features for _, features in read]).to(device)
            rows = torch.tensor([row for row, _ in read])
            yield FeatureBatch(maps, self._targets[rows].to(device))

    def _read(self, draw: Draw) -> tuple[int, Tensor]:
        return draw[0], self._store.read(self._keys[draw[0]])

    def protocol(self) -> dict[str, object]:
        return stored_facts(self._store, self._lost)  # of the whole training set

    def _addresses(self) -> list[str]:
        """Every picture's key; reads the targets by the way."""
        keys: list[str] = []
        for i in track(range(len(self._examples)), label=f"pictures of {self._examples.name}"):
            image, target = self._examples.plain(i)
            keys.append(self._address.of(image))
            self._targets[i] = torch.from_numpy(np.ascontiguousarray(target))
        return keys

    def _fill(self, each: int) -> None:
        """Encode what is not there yet, each of equal pictures once."""
        size, place = self._config.extract_batch, self._store.folder
        lacking = {k: i for i, k in enumerate(self._keys) if not self._store.path(k).exists()}
        missing, free = list(lacking.items()), shutil.disk_usage(place).free
        if each * len(missing) > free:
            raise ValueError(
                f"{place}: {each * len(missing)} bytes of features are to be stored, {free} are "
                f"free; make room, {REMEDIES}"
            )
        label = f"features of {self._examples.name}"
        for start in track(range(0, len(missing), size), label=label):
            chosen = missing[start : start + size]
            maps = self._encode([self._examples.plain(i)[0] for _, i in chosen])
            for (key, _), features in zip(chosen, maps, strict=True):
                self._store.write(key, features)

    def _encode(self, images: Sequence[np.ndarray]) -> Tensor:
        dense, precision = self._examples.task.dense, self._config.precision
        return encode(self._encoder, images, dense=dense, precision=precision).cpu()
