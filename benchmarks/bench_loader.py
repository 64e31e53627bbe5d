"""Joined image and three labels to a 512x512 training batch, against PIL + PNG + torchvision.

    python benchmarks/bench_loader.py [--check] [--photos FOLDER ...] [--count N] [--rounds N]
                                      [--step-seconds S] [--profile]

Both sides read the same JPEG files and the same labels at the photos' size: ours from tars and a
label store (its default codecs), the other from one PNG file a label (8-bit classes, 16-bit
depth, RGB normals), with torchvision's transforms v2 on tensors that know what they are. Both crop
(0.9 to 1 of the area), resize to 512x512, mark invalid pixels, normalise depth by the whole image's
statistics and normals to length 1, and stack batches of 8. One thread, interleaved, medians.

The photographs' labels are made here: regions, smooth disparity, its normals; experts predict
everywhere, so only classes have pixels that are ignored.
Then a step that sleeps for --step-seconds reads batches of 2 from 2 workers, and the share of
time it waits for them is reported. So is the share of loading that the labels' checksums take,
which are compared whenever a label is read. The last lines are
`NAME: MEASURED (goal GOAL) ok|short`; with `--check` one that is short makes the exit code 1.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cliptex.data.joined import Batch, JoinedDataset, load_batches
from cliptex.data.sampler import Sampler
from cliptex.data.transforms import Augmentation
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.ledger import checksum
from cliptex.labels.manifest import Manifest
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import labels_from_arrays
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter
from loader_baseline import PlainLoader, write_plain

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PHOTOS = (SHARED / "flickr8k-mini" / "images", SHARED / "coco-mini" / "val2017")
SIDE, BATCH, CLASSES = 512, 8, 81
KINDS: dict[str, Kind] = {
    "segmentation": ClassMap(tuple(f"class {i}" for i in range(CLASSES))),
    "depth": ScalarField("relative disparity"),
    "normals": UnitVector(),
}
Labels = dict[str, np.ndarray]


def made_labels(height: int, width: int, seed: int) -> Labels:
    """Regions with 5 % ignored, smooth disparity, and normals of its slope, as experts' are."""
    rng = np.random.default_rng(seed)
    regions = rng.integers(0, CLASSES, (6, 8)).astype(np.uint8)
    classes = np.asarray(Image.fromarray(regions).resize((width, height), Image.Resampling.NEAREST))
    depth = np.zeros((height, width), np.float32)
    for cells, strength in (((5, 7), 1.0), ((24, 32), 0.1), ((96, 128), 0.01)):  # as networks' are
        coarse = Image.fromarray(rng.uniform(0, strength, cells).astype(np.float32))
        depth += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    down, right = np.gradient(depth * 60)
    normals = np.stack([right, down, np.ones_like(depth)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    hole = np.asarray(
        Image.fromarray(rng.random((12, 16)) < 0.05).resize((width, height), Image.Resampling.BOX)
    )
    return {
        "segmentation": np.where(hole, 255, classes).astype(np.uint8),
        "depth": depth,
        "normals": normals.astype(np.float32),
    }


@dataclass(frozen=True)
class Prepared:
    """The same samples for both sides."""

    ours: JoinedDataset
    plain: PlainLoader
    count: int


def prepare(photos: Path, count: int, folder: Path) -> Prepared:
    """Write shards, label stores and the plain files of the first `count` photos below `folder`."""
    paths = sorted(photos.glob("*.jpg"))[:count]
    if len(paths) < count:
        raise SystemExit(f"{photos}: {len(paths)} photographs, {count} wanted; lower --count")
    shown = {path.stem: path for path in paths}
    with ShardWriter(folder / "web", prefix="web", samples_per_shard=100) as writer:
        for key, path in shown.items():
            writer.add(key, path.read_bytes(), "jpg", f"photograph {key}")
    shards = ImageTextShards(folder / "web", cache=folder / "index")

    def labels_of(key: str) -> Labels:
        width, height = Image.open(shown[key]).size
        return made_labels(height, width, seed=list(shown).index(key))

    readers = {}
    for task, kind in KINDS.items():
        manifest = Manifest.of(
            kind, expert=task, dataset_id=shards.dataset_id, source="made", max_side=1024
        )
        made = labels_from_arrays(
            folder / "labels",
            manifest,
            shards,
            lambda shard, task=task: [(key, labels_of(key)[task]) for key in shards.keys(shard)],
        )
        readers[task] = LabelReader(made)
    for key, path in shown.items():
        write_plain(folder / "plain", key, path, labels_of(key))
    ours = JoinedDataset(shards=shards, labels=readers, augmentation=Augmentation(), seed=0)
    return Prepared(ours, PlainLoader(folder / "plain", list(shown), SIDE), count)


def seconds_per_image(load: Callable[[int], object], batches: int) -> float:
    """Mean over `batches` batches of 8."""
    start = time.perf_counter()
    for step in range(batches):
        load(step)
    return (time.perf_counter() - start) / (batches * BATCH)


def compare(data: Prepared, rounds: int, batches: int) -> tuple[float, float]:
    """Images a second of both sides: median over interleaved rounds."""
    sampler = Sampler(total=data.count, batch_size=BATCH, seed=0, sizes=((SIDE, SIDE),))
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        first = turn * batches

        def ours(step: int, first: int = first) -> Batch:
            return data.ours.batch(sampler, first + step)

        def plain(step: int, first: int = first) -> object:
            return data.plain.batch(sampler.batch_at(first + step).indices)

        times[0].append(seconds_per_image(ours, batches))
        times[1].append(seconds_per_image(plain, batches))
    mine, theirs = (1 / statistics.median(t[1:]) for t in times)  # the first round warms up
    return mine, theirs


def data_wait(data: Prepared, step_seconds: float, steps: int) -> float:
    """Share of the time that a loop of sleeping steps waits for batches of 2 from 2 workers."""
    sampler = Sampler(total=data.count, batch_size=2, seed=0, sizes=((SIDE, SIDE),))
    batches = load_batches(data.ours, sampler, range(steps + 1), workers=2)
    next(batches)  # the first is nobody's to hide
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        time.sleep(step_seconds)
        before = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - before
    batches.close()
    return waited / (time.perf_counter() - start)


def scaling(data: Prepared, batches: int) -> float:
    """Images a second of 2 workers over those of 1."""
    sampler = Sampler(total=data.count, batch_size=BATCH, seed=0, sizes=((SIDE, SIDE),))
    rates = []
    for workers in (1, 2, 1, 2):
        start = time.perf_counter()
        for _ in load_batches(data.ours, sampler, range(batches), workers=workers):
            pass
        rates.append(1 / (time.perf_counter() - start))
    return (rates[1] + rates[3]) / (rates[0] + rates[2])


def checksum_share(data: Prepared, rate: float) -> float:
    """Share of loading an image, at `rate` images a second, that checking its labels takes."""
    shards = data.ours.shards
    stored: list[tuple[bytes, bytes | None]] = []
    for reader in data.ours.labels.values():
        for number in range(data.count):
            label = reader.read_encoded(*shards.locate(number))
            assert label is not None
            stored.append((label.png, json.dumps(label.meta).encode() if label.meta else None))
    times: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        for png, text in stored:
            checksum(png, text)
        times.append((time.perf_counter() - start) / data.count)
    return statistics.median(times) * rate


def profile(data: Prepared, batches: int) -> None:
    """Where our side spends its time."""
    sampler = Sampler(total=data.count, batch_size=BATCH, seed=0, sizes=((SIDE, SIDE),))
    with cProfile.Profile() as profiler:
        for step in range(batches):
            data.ours.batch(sampler, step)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def report(name: str, measured: float, goal: float, *, at_least: bool) -> bool:
    """Print one claim's line; whether it holds."""
    good = measured >= goal if at_least else measured <= goal
    sign = ">=" if at_least else "<="
    print(f"{name}: {measured:.3g} (goal {sign} {goal:g}) {'ok' if good else 'short'}")
    return good


def main() -> None:
    """Measure every folder of photographs and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="exit 1 where a claim is short")
    parser.add_argument("--photos", type=Path, nargs="+", default=PHOTOS, help="folders of *.jpg")
    parser.add_argument("--count", type=int, default=96, help="photographs of each folder")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--batches", type=int, default=6, help="batches of 8 a round and side")
    parser.add_argument("--step-seconds", type=float, default=1.0, help="of the sleeping step")
    parser.add_argument("--profile", action="store_true", help="only profile our side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    holds = []
    for photos in options.photos:
        with tempfile.TemporaryDirectory() as scratch:
            data = prepare(photos, options.count, Path(scratch))
            if options.profile:
                profile(data, options.batches)
                continue
            mine, theirs = compare(data, options.rounds, options.batches)
            print(f"{photos.parent.name}: ours {mine:.1f} images/s a core, plain {theirs:.1f}")
            print(
                f"{photos.parent.name}: 2 workers give {scaling(data, options.batches):.2f} times"
            )
            wait = data_wait(data, options.step_seconds, steps=8)
            name = photos.parent.name
            holds.append(report(f"{name} loader speed-up", mine / theirs, 2, at_least=True))
            holds.append(report(f"{name} data-wait share", wait, 0.01, at_least=False))
            share = checksum_share(data, mine)
            holds.append(report(f"{name} label-checksum share", share, 0.01, at_least=False))
    sys.exit(options.check and not all(holds))


if __name__ == "__main__":
    main()
