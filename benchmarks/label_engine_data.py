"""Made images and experts that cost nothing; see `bench_label_engine.py`."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter

SIZE = (240, 320)  # of made images and labels
PER_SHARD = 64


class StandIn:
    """Answers one label for every image, after sleeping; keeps what that cost.

    `seconds` of the clock, `cpu` seconds of the thread.
    """

    def __init__(self, name: str, kind: Kind, label: np.ndarray, sleep: float = 0) -> None:
        self.spec = ExpertSpec(
            name=name,
            kind=kind,
            source="a benchmark",
            revision="1",
            weights_sha256="0" * 64,
            licence="none",
        )
        self.label = label
        self.sleep = sleep
        self.seconds = self.cpu = 0.0

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        start, cpu = time.perf_counter(), time.thread_time()
        time.sleep(self.sleep * len(images))
        answers = [Prediction(self.label) for _ in images]
        self.seconds += time.perf_counter() - start
        self.cpu += time.thread_time() - cpu
        return answers


def smooth(generator: np.random.Generator, channels: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W, channels) float32 in 0..1, smooth with a little grain, as photographs and depth."""
    coarse = generator.integers(0, 256, (6, 8, channels), np.uint8)
    shape = (size[1], size[0])
    bands = [Image.fromarray(coarse[:, :, i]).resize(shape) for i in range(channels)]
    values = np.stack([np.asarray(band, np.float32) for band in bands], axis=2) / 255
    return np.clip(values + generator.normal(0, 0.01, values.shape), 0, 1).astype(np.float32)


def stand_ins() -> list[StandIn]:
    """An expert of each kind, with a label that compresses somewhat as real ones do."""
    generator = np.random.default_rng(0)
    height, width = SIZE
    classes = np.kron(generator.integers(0, 21, (6, 8)), np.ones((height // 6, width // 8)))
    normals = smooth(generator, 3, SIZE) - 0.5
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    names = tuple(f"class {i}" for i in range(21))
    return [
        StandIn("classes", ClassMap(names), classes.astype(np.uint8)),
        StandIn("depth", ScalarField("1/m"), smooth(generator, 1, SIZE)[:, :, 0]),
        StandIn("normals", UnitVector(), normals),
    ]


def write_shards(folder: Path, images: Iterator[bytes]) -> ImageTextShards:
    """Image-text shards of JPEG files."""
    with ShardWriter(folder, prefix="bench", samples_per_shard=PER_SHARD) as writer:
        for number, data in enumerate(images):
            writer.add(f"{number:06d}", data, "jpg", "a picture")
    return ImageTextShards(folder, cache=folder / "index")


def made_images(count: int) -> Iterator[bytes]:
    """JPEGs of one size, each of its own content."""
    for number in range(count):
        pixels = smooth(np.random.default_rng(number), 3, SIZE)
        buffer = io.BytesIO()
        Image.fromarray((255 * pixels).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        yield buffer.getvalue()
