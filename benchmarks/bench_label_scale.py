"""A label store of millions: seconds and memory of opening it, and whether a sample's cost grows.

    python benchmarks/bench_label_scale.py [--check] [--samples N] [--shards N] [--keep DIR]

Two data sets of tiny images are written by the real writers: 10 thousand samples in 2 shards, and
3 million in 576 (10 GB of disk in the folder for temporary files, see TMPDIR). With `--keep` they
stay in DIR and are used again. Then each measurement runs in a process of its own, the files'
pages in the system's cache where they fit. Per sample, at both sizes:

join: number -> (shard, key) -> the label's stored bytes, ledgers and files opened on the way, in
    the training's order (its sampler's windows), in the files' order, and drawn at random from all
    samples after every ledger was read. "decoded" adds the label's pixels, as training reads it.
    At random over many shards all files stay open where `ulimit -n` is 8 times their number.
verify: `verify_labels` without decoding: hashes, sizes, keys, places.

The last lines are `NAME: MEASURED (goal GOAL) ok|short`; with `--check` one that is short makes
the exit code 1.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cliptex.data.joined import JoinedDataset, check_same_images
from cliptex.data.sampler import Sampler
from cliptex.data.transforms import Augmentation
from cliptex.labelling.verify import verify_labels
from cliptex.labels.ledger import Status
from cliptex.labels.reader import LabelReader
from cliptex.shards.dataset import ImageTextShards
from label_scale_data import EXPERT, make

SMALL = (10_000, 2)  # samples, shards
BATCH = 256
SIDE = 64  # pixels of the first batch's images
JOINED = 100_000  # samples of a join at most; a smaller set is gone through repeatedly
AT_LEAST = 1.0  # seconds that a measurement of a small set is repeated for

Results = dict[str, float]
Opened = tuple[ImageTextShards, LabelReader]


def open_store(folder: Path) -> Opened:
    """What training opens, the identity of the images checked."""
    shards = ImageTextShards(folder / "images", cache=folder / "index")
    reader = LabelReader(folder / "labels" / EXPERT)
    check_same_images(reader, shards)
    return shards, reader


def memory() -> float:
    """MiB of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def highest_memory() -> float:
    """The most MiB that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure_open(folder: Path) -> Results:
    """Seconds and MiB of opening, of the first batch, and of everything loaded."""
    gc.collect()
    before, start = memory(), time.perf_counter()
    shards, reader = open_store(folder)
    found = {"open s": time.perf_counter() - start, "open MB": memory() - before}
    start = time.perf_counter()
    training(shards, reader)
    found["first batch s"] = time.perf_counter() - start
    found["first batch MB"] = memory() - before
    start = time.perf_counter()
    load_all(shards, reader)
    found["all loaded s"] = time.perf_counter() - start
    found["all loaded MB"] = memory() - before
    return found


def load_all(shards: ImageTextShards, reader: LabelReader) -> None:
    """Read every index and ledger, and look up a key in each."""
    for shard in shards.shards:
        key = shards.index(shard).key(0)
        ledger = reader.ledger(shard)
        assert ledger is not None and ledger.find(key) == shards.index(shard).row(key) == 0


def training(shards: ImageTextShards, reader: LabelReader) -> None:
    """The first batch of a training on these labels."""
    labels = {"classes": reader}
    dataset = JoinedDataset(shards=shards, labels=labels, augmentation=Augmentation(), seed=0)
    batch = dataset.batch(sampler_of(shards), 0)
    assert bool(batch.targets["classes"].present.all())


def sampler_of(shards: ImageTextShards) -> Sampler:
    """The training's sampler over the shards."""
    counts = tuple(len(shards.index(shard)) for shard in shards.shards)
    return Sampler(
        total=len(shards), batch_size=BATCH, seed=0, sizes=((SIDE, SIDE),), shards=counts
    )


def measure_join(folder: Path) -> Results:
    """Microseconds per sample of finding and reading labels, in several orders."""
    shards, reader = open_store(folder)
    total = len(shards)
    sampler = sampler_of(shards)
    steps = range(-(-min(total, JOINED) // BATCH))
    trained = np.concatenate([sampler.batch_at(step).indices for step in steps])
    anywhere = np.random.default_rng(0).permutation(total)[:JOINED]

    def anew() -> Opened:
        return open_store(folder)

    def loaded() -> Opened:
        return shards, reader

    found: Results = {}
    for name, order in (("training order", trained), ("file order", np.arange(min(total, JOINED)))):
        found[name] = per_sample(lambda s, r, order=order: join(s, r, order), anew, len(order))
    load_all(shards, reader)
    for name, decoded in (("at random", False), ("at random, decoded", True)):
        join(shards, reader, anywhere[:1000])
        found[name] = per_sample(
            lambda s, r, decoded=decoded: join(s, r, anywhere, decoded=decoded),
            loaded,
            len(anywhere),
        )
    found["training order, decoded"] = per_sample(
        lambda s, r: join(s, r, trained, decoded=True), loaded, len(trained)
    )
    return found


def join(
    shards: ImageTextShards, reader: LabelReader, order: np.ndarray, *, decoded: bool = False
) -> None:
    """Find and read each label."""
    read = reader.read if decoded else reader.read_encoded
    for number in order.tolist():
        assert read(*shards.locate(number)) is not None


def measure_verify(folder: Path) -> Results:
    """Microseconds per sample of checks that go over the whole store; MiB at most."""

    def anew() -> Opened:
        return open_store(folder)

    def verify(shards: ImageTextShards, reader: LabelReader) -> None:
        report = verify_labels(shards, reader.folder, decode=0)
        assert report.ok and report.images == len(shards), str(report)

    def coverage(shards: ImageTextShards, reader: LabelReader) -> None:
        assert reader.coverage(shards) == 1

    def statuses(shards: ImageTextShards, reader: LabelReader) -> None:
        assert reader.statuses()[Status.OK] == len(shards)

    total = len(anew()[0])
    before = highest_memory()
    found = {"verify": per_sample(verify, anew, total)}
    found["verify MB"] = highest_memory() - before
    found["coverage"] = per_sample(coverage, anew, total)
    found["statuses"] = per_sample(statuses, anew, total)
    return found


def per_sample(
    run: Callable[[ImageTextShards, LabelReader], None], opened: Callable[[], Opened], count: int
) -> float:
    """Median microseconds per sample of `run`, which goes over `count`; opening is not counted."""
    took: list[float] = []
    while sum(took) < AT_LEAST:
        store = opened()
        gc.collect()
        start = time.perf_counter()
        run(*store)
        took.append(time.perf_counter() - start)
    return 1e6 * statistics.median(took) / count


MEASUREMENTS: dict[str, Callable[[Path], Results]] = {
    "open": measure_open,
    "join": measure_join,
    "verify": measure_verify,
}


def in_own_process(measurement: str, folder: Path) -> Results:
    """The results of one measurement in a new process."""
    command = [sys.executable, __file__, "--measure", measurement, "--keep", str(folder)]
    environment = {**os.environ, "CLIPTEX_QUIET": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)


def measure_all(small: Path, large: Path) -> list[tuple[str, float, float]]:
    """Print every measurement at both sizes; (name, measured, goal) of the claims."""
    results: list[Results] = []
    for folder in (small, large):
        found: Results = {}
        for measurement in MEASUREMENTS:
            found |= in_own_process(measurement, folder)
        results.append(found)
    few, many = results
    print(f"{'':26}{'few':>10}{'many':>10}{'ratio':>8}")
    for name in few:
        ratio = "" if name.endswith((" s", " MB")) else f"{many[name] / few[name]:.2f}"
        print(f"{name:26}{few[name]:10.3f}{many[name]:10.3f}{ratio:>8}")
    claims = [
        ("open seconds", many["open s"], 2.0),
        ("open MB", many["open MB"], 500.0),
        ("everything loaded MB", many["all loaded MB"], 500.0),
    ]
    for name in ("training order", "file order", "at random"):
        claims.append((f"join {name}, many over few", many[name] / few[name], 1.25))
    claims.append(("verify, many over few", many["verify"] / few["verify"], 1.25))
    return claims


def main() -> None:
    """Make both data sets, measure, and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="exit 1 where a claim is short")
    parser.add_argument("--samples", type=int, default=3_000_000)
    parser.add_argument("--shards", type=int, default=576)
    parser.add_argument("--keep", type=Path, help="make the data here, or use what is here")
    parser.add_argument("--processes", type=int, default=1, help="that make the data")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASUREMENTS[options.measure](options.keep)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        sizes = {"small": SMALL, "large": (options.samples, options.shards)}
        for name, (samples, shards) in sizes.items():
            make(folder / name, samples, shards, options.processes)
        claims = measure_all(folder / "small", folder / "large")
    for name, measured, goal in claims:
        print(f"{name}: {measured:.3g} (goal <= {goal:g}) {'ok' if measured <= goal else 'short'}")
    sys.exit(options.check and any(measured > goal for _, measured, goal in claims))


if __name__ == "__main__":
    main()
