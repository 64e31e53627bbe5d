"""Small image-text shards, some of them with broken images, and experts made of numpy."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.labels.kinds import Kind, ScalarField
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter


def _brightness(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=2, dtype=np.float32)


@dataclass
class NumpyExpert:
    """Labels every image by `label`, and remembers the shapes of its batches."""

    label: Callable[[np.ndarray], np.ndarray] = _brightness
    kind: Kind = field(default_factory=lambda: ScalarField("1/m"))
    name: str = "numpy"
    confidence: str = ""
    batches: list[list[tuple[int, ...]]] = field(default_factory=list)

    @property
    def spec(self) -> ExpertSpec:
        return ExpertSpec(
            name=self.name,
            kind=self.kind,
            source="a test",
            revision="1",
            weights_sha256="0" * 64,
            licence="none",
            confidence=self.confidence,
        )

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        self.batches.append([image.shape for image in images])
        return [Prediction(self.label(image)) for image in images]


def picture(number: int, size: tuple[int, int], encoding: str = "PNG") -> bytes:
    """A gradient whose first pixel's red is `number`; size (H, W)."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:, :, 1] = np.arange(size[1])
    pixels[:, :, 2] = np.arange(size[0])[:, None]
    pixels[0, 0, 0] = number
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, encoding)
    return buffer.getvalue()


@pytest.fixture
def make_expert() -> type[NumpyExpert]:
    return NumpyExpert


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., ImageTextShards]:
    """make_shards(images, per_shard=4): one sample per entry, as bytes."""

    def make(images: Sequence[bytes], per_shard: int = 4) -> ImageTextShards:
        with ShardWriter(tmp_path / "data", prefix="tiny", samples_per_shard=per_shard) as writer:
            for number, data in enumerate(images):
                writer.add(f"{number:05d}", data, "png", f"picture {number}")
        return ImageTextShards(tmp_path / "data", cache=tmp_path / "cache")

    return make


@pytest.fixture
def shards(make_shards: Callable[..., ImageTextShards]) -> ImageTextShards:
    """Three shards of four images of 20x30, key = number."""
    return make_shards([picture(i, (20, 30)) for i in range(12)])


@pytest.fixture
def draw_picture() -> Callable[..., bytes]:
    return picture
