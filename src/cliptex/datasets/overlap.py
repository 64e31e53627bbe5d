"""Near-duplicates between training shards and the pictures of a benchmark, by perceptual hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cliptex.console import track
from cliptex.results import Result
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image

GRID = 9  # cells of the reduced picture a side; 8 x 8 differences along each axis
BITS = 2 * (GRID - 1) ** 2
THRESHOLD = 12
DECODED_SIDE = 144  # a JPEG may be reduced to this many pixels a side while it is decoded
BLOCK = 4096  # training pictures compared at once with all test pictures
CHUNK = 1024  # pictures handed to the threads at once

Hash = np.ndarray  # (2,) uint64: signs along rows, and along columns


@dataclass(frozen=True)
class Pair:
    """Training picture `key` of `shard` and test picture `index`, `distance` bits apart."""

    shard: str
    key: str
    index: int
    distance: int
    mirrored: bool


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a comparison found; `unread` training pictures do not decode."""

    pairs: tuple[Pair, ...]
    training: int
    unread: int
    test: int

    @property
    def share(self) -> float:
        """Percentage of test pictures with a near-duplicate."""
        return 100 * len({pair.index for pair in self.pairs}) / self.test


def picture_hash(image: np.ndarray) -> Hash:
    """Difference hash of a picture (H, W, 3) uint8: (2,) uint64.

    The picture becomes 9 x 9 grey cells; a bit says whether a cell is brighter than the one
    before it in its row, 64 of them, and 64 more in its column. Re-encoding, resizing (also to
    another aspect) and changes of brightness or contrast leave nearly all as they are; a crop
    does not. (Krawetz's dHash is the first word.)
    """
    grey = Image.fromarray(image).convert("L")
    cells = np.asarray(grey.resize((GRID, GRID), Image.Resampling.BOX), np.int16)
    along, down = cells[:-1, 1:] > cells[:-1, :-1], cells[1:, :-1] > cells[:-1, :-1]
    return np.packbits(np.stack([along, down]).reshape(2, -1), axis=-1).view(np.uint64)[:, 0]


def near_pairs(
    train: np.ndarray, test: np.ndarray, threshold: int, block: int = BLOCK
) -> np.ndarray:
    """(P, 3) int64 rows (train, test, distance) of hashes at most `threshold` bits apart.

    `train` (N, 2) and `test` (M, 2) uint64; at most `block` x M distances are in memory.
    """
    found = [np.empty((0, 3), np.int64)]
    for start in range(0, len(train), block):
        part = train[start : start + block]
        distance = np.zeros((len(part), len(test)), np.uint8)
        for word in range(part.shape[1]):
            distance += np.bitwise_count(part[:, None, word] ^ test[None, :, word])
        rows, columns = np.nonzero(distance <= threshold)
        near = np.stack([rows + start, columns, distance[rows, columns]], axis=-1)
        found.append(near.astype(np.int64))
    return np.concatenate(found)


def find_overlap(
    shards: ImageTextShards, test: Any, *, threshold: int = THRESHOLD, mirrored: bool = True
) -> Overlap:
    """Compare all pictures of `shards` with all of `test` (any reader of cliptex.datasets).

    threshold: bits of 128 in which near-duplicates may differ. mirrored: also look for mirror
    images. ValueError for a test set that is empty.
    """
    if not len(test):
        raise ValueError(f"{test.name} is empty")
    read = reader_of(test)
    hashes = in_threads(lambda i: picture_hash(read(i)), len(test), f"hashes of {test.name}")
    wanted = [np.stack(list(hashes))]
    if mirrored:
        flipped = in_threads(
            lambda i: picture_hash(read(i)[:, ::-1]), len(test), "their mirror images"
        )
        wanted.append(np.stack(list(flipped)))
    pairs: list[Pair] = []
    unread, start = 0, 0
    training = in_threads(
        lambda i: _shard_hash(shards, i), len(shards), "hashes of training pictures"
    )
    for batch in _batches(training, BLOCK):
        known = [(start + i, value) for i, value in enumerate(batch) if value is not None]
        start, unread = start + len(batch), unread + len(batch) - len(known)
        if known:
            here = np.stack([value for _, value in known])
            for flip, there in enumerate(wanted):
                for row, index, bits in near_pairs(here, there, threshold).tolist():
                    shard, key = shards.locate(known[row][0])
                    pairs.append(Pair(shard, key, index, bits, bool(flip)))
    return Overlap(pairs=tuple(pairs), training=len(shards), unread=unread, test=len(test))


def overlap_row(
    found: Overlap, test: Any, *, training: str, threshold: int, mirrored: bool
) -> Result:
    """The row that the report shows: percent of test pictures with a near-duplicate."""
    return Result(
        model=training,
        task="overlap",
        dataset=test.name,
        metric="overlap",
        value=found.share,
        better="lower",
        n=found.test,
        protocol={
            "hash": f"difference hash, {BITS} bits",
            "threshold": threshold,
            "mirrored": mirrored,
            "training_images": found.training,
            "unread": found.unread,
            "pairs": len(found.pairs),
        },
    )


def reader_of(dataset: Any) -> Callable[[int], np.ndarray]:
    """A function that gives picture `i` of any reader, whatever its task."""
    if hasattr(dataset, "image"):
        return dataset.image
    if hasattr(dataset, "ground_truth"):
        return lambda index: dataset.item(index, masks=False).image

    def picture(index: int) -> np.ndarray:
        item = dataset[index]
        return item[0] if isinstance(item, tuple) else item.image

    return picture


def _shard_hash(shards: ImageTextShards, index: int) -> Hash | None:
    try:
        return picture_hash(
            decode_image(shards.read_image(*shards.locate(index)), min_side=DECODED_SIDE)
        )
    except ImageError:
        return None


def in_threads(read: Callable[[int], Any], count: int, label: str) -> Iterator[Any]:
    """`read(0)`, `read(1)`, ... in threads (decoding releases the interpreter), in order."""
    with ThreadPoolExecutor() as pool:
        for chunk in track(range(0, count, CHUNK), label=label):
            yield from pool.map(read, range(chunk, min(chunk + CHUNK, count)))


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
