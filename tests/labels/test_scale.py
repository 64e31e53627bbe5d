"""What a store of many samples costs: counted in bytes and system calls read, never in seconds.

`benchmarks/bench_label_scale.py` measures three million samples in 576 shards.
"""

from __future__ import annotations

import gc
import io
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from cliptex.labelling.verify import verify_labels
from cliptex.labels.codecs import Encoded
from cliptex.labels.kinds import ClassMap
from cliptex.labels.ledger import Entry, Ledger, Status, ledger_bytes, read_ledger
from cliptex.labels.manifest import Manifest, claim_store
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import ShardLabelWriter
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter

KIND = ClassMap(("background", "square"))
LABEL = KIND.encode(np.eye(8, dtype=np.uint8))


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Place:
    """A data set and its labels, to be opened as often as one likes."""

    root: Path

    def images(self) -> ImageTextShards:
        return ImageTextShards(self.root / "images", cache=self.root / "index")

    def reader(self) -> LabelReader:
        return LabelReader(self.root / "labels" / "truth")


@pytest.fixture
def make(tmp_path: Path) -> Callable[[int, int], Place]:
    """A store of so many shards of so many samples, its images indexed; keys of one width."""

    def made(shards: int, samples: int) -> Place:
        place = Place(tmp_path / f"{shards}x{samples}")
        data = picture()
        with ShardWriter(place.root / "images", prefix="s", samples_per_shard=samples) as writer:
            for number in range(shards * samples):
                writer.add(f"{number:06d}", data, "png", "a caption")
        images = place.images()
        fields = {"expert": "truth", "dataset_id": images.dataset_id, "source": "a test"}
        folder = claim_store(place.root / "labels", Manifest.of(KIND, **fields))
        for shard in images.shards:
            with ShardLabelWriter(folder, shard) as writer:
                for key in images.keys(shard):
                    writer.add(key, LABEL)
                writer.commit()
        return place

    return made


def reads(run: Callable[[], object]) -> tuple[int, int]:
    """(bytes, system calls) that `run` reads; run once before, as a first run imports modules."""
    run()
    before = _read_so_far()
    run()
    after = _read_so_far()
    calls_of_counting = _read_so_far().calls - after.calls
    size = after.size - before.size - before.own  # its text grows with its numbers
    return size, after.calls - before.calls - calls_of_counting


class Read(NamedTuple):
    """Bytes and system calls up to now, and the bytes that asking for them reads then."""

    size: int
    calls: int
    own: int


def _read_so_far() -> Read:
    text = Path("/proc/self/io").read_text()
    fields = dict(line.split(": ") for line in text.splitlines())
    return Read(int(fields["rchar"]), int(fields["syscr"]), len(text))


def test_open__reads_no_more_of_large_shards(make: Callable[[int, int], Place]) -> None:
    few, many = make(3, 4), make(3, 400)
    counts = []
    for place in (few, many):
        counts.append(reads(lambda place=place: (place.images(), place.reader())))
        assert len(place.images()) == 3 * (4 if place is few else 400)
    size, _ = counts[0]
    assert counts[1] == counts[0]
    assert size < 3 * 200 + 2 * (few.root / "labels" / "truth" / "manifest.json").stat().st_size


def test_join__reads_a_label_and_nothing_else(make: Callable[[int, int], Place]) -> None:
    for place, total in ((make(2, 20), 40), (make(20, 20), 400)):
        images, reader = place.images(), place.reader()
        order = np.random.default_rng(0).permutation(total).tolist()

        def join(images=images, reader=reader, order=order) -> None:
            for number in order:
                found = reader.read_encoded(*images.locate(number))
                assert found is not None and found.png == LABEL.png

        assert reads(join) == (total * len(LABEL.png), total)


def test_join_anew__reads_each_ledger_once(make: Callable[[int, int], Place]) -> None:
    def bytes_of(place: Place, shards: int) -> int:
        images = place.images()

        def join() -> None:
            reader = place.reader()
            for number in range(20 * shards):
                assert reader.read_encoded(*images.locate(number)) is not None

        return reads(join)[0]

    few, many = make(2, 20), make(20, 20)
    ledger = (few.root / "labels/truth/s-00000.ledger").stat().st_size
    per_shard = ledger + 20 * len(LABEL.png)
    assert bytes_of(many, 20) - bytes_of(few, 2) == 18 * per_shard


def test_verify__reads_labels_ledgers_and_indices_once(make: Callable[[int, int], Place]) -> None:
    few, many = make(2, 20), make(20, 20)

    def verify(place: Place) -> int:
        report = verify_labels(place.images(), place.reader().folder, decode=0)
        assert report.ok
        return report.images

    store = few.root / "labels" / "truth"
    index = next((few.root / "index").iterdir()).stat().st_size
    sizes = [(store / f"s-00000.{suffix}").stat().st_size for suffix in ("tar", "ledger")]
    head = 160  # read at opening, and again with the rest
    counted = [reads(lambda place=place: verify(place))[0] for place in (few, many)]
    assert verify(many) == 400
    assert counted[1] - counted[0] == 18 * (sum(sizes) + index + head)


def test_everything_loaded__takes_little_memory(make: Callable[[int, int], Place]) -> None:
    def load(place: Place) -> tuple[int, list[object]]:
        images, reader = place.images(), place.reader()
        tracemalloc.start()
        kept: list[object] = [images, reader]
        for number in range(len(images)):
            assert reader.read_encoded(*images.locate(number)) is not None
        images.index(images.shards[0]).row("000000")
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size, kept

    few, many = make(1, 100), make(1, 2100)
    for place in (few, many):
        load(place)  # first use allocates what stays
    # The interpreter frees some kB of its own now and then, so each is read several times.
    most = max(load(many)[0] for _ in range(3))
    least = min(load(few)[0] for _ in range(12))
    per_sample = (most - least) / 2000
    # a row of 61 and one of 33 bytes, two keys of 6: 106, and 3 million samples take 330 MB
    assert 106 <= per_sample < 118


def ledger_of(folder: Path, keys: list[str], failed: frozenset[str] = frozenset()) -> Ledger:
    status = {True: Status.BAD_LABEL, False: Status.OK}
    entries = [Entry(key=key, status=status[key in failed]) for key in keys]
    (folder / "x.ledger").write_bytes(ledger_bytes(entries, 0, "0" * 64))
    return read_ledger(folder / "x.ledger")


@pytest.mark.parametrize("shuffled", [False, True])
def test_find__in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffled: bool
) -> None:
    keys = sorted(["a", "b/c", "é", "zz", *(f"{n:04d}" for n in range(0, 300, 3))])
    keys.sort(key=str.encode)
    if shuffled:
        keys = [keys[i] for i in np.random.default_rng(1).permutation(len(keys))]
    else:  # keys in order need no table of their order
        monkeypatch.setattr(np, "argsort", None)
    ledger = ledger_of(tmp_path, keys)
    assert [ledger.find(key) for key in keys] == list(range(len(keys)))
    for absent in ("", "0001", "0298", "b", "zzz", "longer than any"):
        assert ledger.find(absent) is None


def test_find__in_an_empty_ledger(tmp_path: Path) -> None:
    assert ledger_of(tmp_path, []).find("a") is None


@pytest.mark.parametrize(
    ("keys", "failed", "share"),
    [
        (["000000", "000001", "000002"], "000001", 2 / 3),
        (["000002", "000000", "000001"], "000001", 2 / 3),  # another order than the images'
        (["000002", "000001"], "000001", 1 / 3),
        (["000000", "of another image"], "", 1 / 3),
        ([], "", 0),
    ],
)
def test_coverage__whatever_the_ledger_knows(
    make: Callable[[int, int], Place], keys: list[str], failed: str, share: float
) -> None:
    place = make(1, 3)
    with ShardLabelWriter(place.reader().folder, "s-00000.tar") as writer:
        for key in keys:
            if key == failed:
                writer.fail(key, Status.BAD_LABEL)
            else:
                writer.add(key, Encoded(LABEL.png, None))
        writer.commit(replace=True)
    assert place.reader().coverage(place.images()) == pytest.approx(share)
