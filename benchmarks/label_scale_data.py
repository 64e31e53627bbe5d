"""Tiny images and labels in any number, by the real writers; see `bench_label_scale.py`."""

from __future__ import annotations

import io
import shutil
import time
from functools import cache
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

from cliptex.labels.codecs import Encoded
from cliptex.labels.kinds import ClassMap
from cliptex.labels.manifest import Manifest, claim_store
from cliptex.labels.writer import ShardLabelWriter, is_committed
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardFile

KIND = ClassMap(("background", "square"))
EXPERT = "stand-in"


def make(folder: Path, samples: int, shards: int, processes: int) -> None:
    """Images, their index, and one expert's labels; shards that are there already stay."""
    sizes = np.diff(np.linspace(0, samples, shards + 1).round().astype(int)).tolist()
    start = time.perf_counter()
    models = {size: write_images(folder / f"{size}.tar", size) for size in set(sizes)}
    jobs = [(folder, number, models[size]) for number, size in enumerate(sizes)]
    with Pool(processes) as pool:
        indexing, labelling = np.sum(pool.starmap(make_shard, jobs, chunksize=1), axis=0)
    images = ImageTextShards(folder / "images", cache=folder / "index")
    assert len(images) == samples, f"{folder} holds another data set: remove it"
    fields = {"expert": EXPERT, "dataset_id": images.dataset_id, "source": "a benchmark"}
    claim_store(folder / "labels", Manifest.of(KIND, **fields))
    print(
        f"{samples} samples in {shards} shards, made in {time.perf_counter() - start:.0f} s; "
        f"processor seconds of the first index {indexing:.0f}, of writing labels {labelling:.0f}",
        flush=True,
    )


def write_images(tar: Path, samples: int) -> Path:
    """Pairs of one picture and a short caption; keys are unique in their shard, as they must be."""
    with ShardFile(tar) as images:
        for row in range(samples):
            images.add(f"{row:09d}", picture(), "png", f"picture {row}")
    return tar


def make_shard(folder: Path, number: int, model: Path) -> tuple[float, float]:
    """A copy of `model`, its index and its labels; processor seconds of the latter two."""
    tar = folder / "images" / f"scale-{number:05d}.tar"
    tar.parent.mkdir(exist_ok=True)
    if not tar.exists():
        shutil.copyfile(model, tar)
    start = time.process_time()
    shard = ImageTextShards(tar, cache=folder / "index")  # leaves the index in the cache
    indexing, start = time.process_time() - start, time.process_time()
    out = folder / "labels" / EXPERT
    if not is_committed(out, tar.name):
        size = shard.index(tar.name).size
        with ShardLabelWriter(out, tar.name, image_size=size) as writer:
            for key in shard.keys(tar.name):
                writer.add(key, encoded())
            writer.commit()
    return indexing, time.process_time() - start


@cache
def picture() -> bytes:
    """An 8x8 PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def encoded() -> Encoded:
    """An 8x8 class map."""
    return KIND.encode(np.eye(8, dtype=np.uint8))
