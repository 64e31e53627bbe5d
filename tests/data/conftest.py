"""A shard of pictures that are easy to reason about, and labels for them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.labels.kinds import Kind
from cliptex.labels.manifest import Manifest, claim_store
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import ShardLabelWriter, add_label, labels_from_arrays
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter

Pictures = list[tuple[bytes, str]]


def png(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def encode() -> Callable[[np.ndarray], bytes]:
    """(H, W, 3) uint8 -> PNG bytes."""
    return png


@pytest.fixture
def write_shards(tmp_path: Path) -> Callable[[Pictures], ImageTextShards]:
    """Image files and texts -> shards of four samples, keys 000, 001, ..."""

    def write(pictures: Pictures) -> ImageTextShards:
        with ShardWriter(tmp_path / "web", prefix="web", samples_per_shard=4) as writer:
            for number, (data, text) in enumerate(pictures):
                writer.add(f"{number:03d}", data, "png", text)
        return ImageTextShards(tmp_path / "web", cache=tmp_path / "index")

    return write


@pytest.fixture
def write_reliable(tmp_path: Path) -> Callable[..., LabelReader]:
    """As `write_labels`, with key -> confidence (left out: none) stored beside the labels."""

    def write(
        shards: ImageTextShards,
        name: str,
        kind: Kind,
        arrays: Mapping[str, np.ndarray],
        confidence: Mapping[str, np.ndarray],
    ) -> LabelReader:
        manifest = Manifest.of(
            kind, expert=name, dataset_id=shards.dataset_id, source="a test", confidence="a test"
        )
        folder = claim_store(tmp_path / "reliable", manifest)
        for shard in shards.shards:
            with ShardLabelWriter(folder, shard) as writer:
                for key in shards.keys(shard):
                    add_label(writer, manifest, key, arrays[key], confidence=confidence.get(key))
                writer.commit()
        return LabelReader(folder)

    return write


@pytest.fixture
def write_labels(tmp_path: Path) -> Callable[..., LabelReader]:
    """Kind and key -> array (left out: missing) -> a reader of the store."""

    def write(
        shards: ImageTextShards, name: str, kind: Kind, arrays: Mapping[str, np.ndarray]
    ) -> LabelReader:
        manifest = Manifest.of(kind, expert=name, dataset_id=shards.dataset_id, source="a test")

        def of_shard(shard: str) -> list[tuple[str, np.ndarray | None]]:
            return [(key, arrays.get(key)) for key in shards.keys(shard)]

        return LabelReader(labels_from_arrays(tmp_path / "labels", manifest, shards, of_shard))

    return write
