"""A colour-coded world: every cell of a picture has a colour that tells its label."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from cliptex.datasets import DenseItem
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.models.encoder import Features, FrozenEncoder
from cliptex.probes import FastConfig, Naming, ProbeOutcome, fast, run_probe

CELL, CELLS = 4, 4
SIDE = CELL * CELLS
PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
CLASSES = ("background", "red", "green", "blue")


class MeanColour(nn.Module):
    """Average colour of each cell, times a scale, beside a constant channel."""

    stride, channels = CELL, 4

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images: torch.Tensor) -> Features:
        maps = torch.nn.functional.avg_pool2d(images, CELL) * self.scale
        maps = torch.cat([maps, torch.ones_like(maps[:, :1])], dim=1)
        pooled = maps.mean((2, 3))
        return Features(pooled, pooled, {CELL: maps})


class Restless(MeanColour):
    """Counts its calls in a buffer, as a norm in training mode would."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: torch.Tensor) -> Features:
        self.calls += 1
        return super().forward(images)


@dataclass
class World:
    """Pictures of one colour per cell; `order` records reads by the sets that share it."""

    kind: Kind
    count: int
    seed: int
    name: str = "world"
    uniform: bool = False
    order: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def ids(self, index: int) -> np.ndarray:
        size = (1, 1) if self.uniform else (CELLS, CELLS)
        ids = np.random.default_rng([self.seed, index]).integers(0, 4, size)
        ids = np.broadcast_to(ids, (CELLS, CELLS))
        return ids.repeat(CELL, 0).repeat(CELL, 1)  # (SIDE, SIDE)

    def __getitem__(self, index: int) -> DenseItem:
        self.order.append(self.name)
        ids = self.ids(index)
        return DenseItem(PALETTE[ids], self.target(ids))

    def target(self, ids: np.ndarray) -> np.ndarray:
        if isinstance(self.kind, ClassMap):
            return ids.astype(np.uint8)
        if isinstance(self.kind, ScalarField):  # disparity is linear in red, green and blue
            return (1 / np.array([0.2, 0.4, 0.7, 1.0])[ids]).astype(np.float32)
        directions = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, -0.6, 0.8]], np.float32)
        return directions[ids]


@dataclass
class Colours:
    """Classification: pictures of one colour."""

    count: int
    seed: int
    name: str = "colours"
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        label = int(np.random.default_rng([self.seed, index]).integers(0, 4))
        return np.broadcast_to(PALETTE[label], (SIDE, SIDE, 3)), label


KINDS: dict[str, Kind] = {
    "segmentation": ClassMap(classes=CLASSES),
    "depth": ScalarField(unit="m"),
    "normals": UnitVector(),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def kinds() -> dict[str, Kind]:
    return KINDS


@pytest.fixture
def world() -> type[World]:
    return World


@pytest.fixture
def colours() -> type[Colours]:
    return Colours


@pytest.fixture
def encoder():
    """Makes a frozen encoder whose features have the given scale."""
    return lambda scale=1.0: FrozenEncoder(MeanColour(scale))


@pytest.fixture
def restless() -> FrozenEncoder:
    return FrozenEncoder(Restless())


@pytest.fixture
def config():
    """Makes a small configuration; keywords override."""

    def make(rates: Sequence[float] = (0.01, 0.1, 0.5), **changes) -> FastConfig:
        # At a resolution of CELLS x CELL with the labels' own grid of cells.
        values = {"resolution": SIDE, "epochs": 15, "batch_size": 8, "min_steps": 0}
        values |= {"learning_rates": rates}
        return fast(**(values | changes))

    return make


@pytest.fixture
def probe_one():
    """Runs a probe of one head and seed; its outcome, ValueError where it has an error."""

    def run(encoder, train, val, test, config, *, model="m", storage=None, truths=None, **known):
        naming = Naming(model=model, **known)
        options = {"naming": naming, "storage": storage, "truths": truths}
        (outcome,) = run_probe(encoder, train, val, test, config, **options)
        if outcome.error:
            raise ValueError(outcome.error)
        assert isinstance(outcome, ProbeOutcome)
        return outcome

    return run
