"""The store: what is written is what is read, whole or not at all, and damage is named."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import Manifest, claim_store, folder_name
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import labels_from_arrays
from cliptex.shards.dataset import ImageTextShards

SCALAR = ScalarField("1/m")


def manifest(kind: Kind, shards: ImageTextShards, **changes) -> Manifest:
    fields = {"expert": "test:truth", "dataset_id": shards.dataset_id, "source": "a test"}
    return Manifest.of(kind, **{**fields, **changes})


def disparity(key: str) -> np.ndarray:
    """(8, 12): the image's number plus the column, a hole in one corner."""
    array = np.tile(np.arange(12, dtype=np.float32), (8, 1)) + int(key)
    array[0, 0] = np.nan
    return array


@pytest.fixture
def store(shards: ImageTextShards, tmp_path: Path) -> Path:
    """Disparity of all images but one, at half their resolution."""

    def arrays(shard: str) -> Iterator[tuple[str, np.ndarray | None]]:
        for key in reversed(shards.keys(shard)):  # any order will do
            yield key, None if key == "00004" else disparity(key)

    return labels_from_arrays(tmp_path / "labels", manifest(SCALAR, shards), shards, arrays)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_read__by_shard_and_key(shards: ImageTextShards, store: Path) -> None:
    assert store.name == "test-truth"
    reader = LabelReader(store)
    assert reader.kind == SCALAR and reader.shards == shards.shards
    for i in range(6):
        shard, key = shards.locate(i)
        stored = reader.read(shard, key)
        if key == "00004":
            assert stored is None
            continue
        assert stored is not None
        assert np.allclose(stored.array, disparity(key), atol=6e-3, equal_nan=True)
        # median of the 95 valid columns, each 8 times but for the corner's 0
        assert stored.shift == pytest.approx(int(key) + 6)
        assert stored.scale == pytest.approx(np.nanmean(np.abs(disparity(key) - int(key) - 6)))


def test_missing__is_none_not_an_error(shards: ImageTextShards, store: Path) -> None:
    reader = LabelReader(store)
    assert reader.read(shards.shards[0], "no such key") is None
    assert reader.read(shards.shards[0], "a key longer than any in the ledger" * 3) is None
    assert reader.read("absent/shard.tar", "00000") is None
    assert reader.coverage(shards) == pytest.approx(5 / 6)
    assert reader.statuses() == Counter({Status.OK: 5, Status.NO_LABEL: 1})
    assert list(reader.failures()) == [(shards.shards[1], "00004", Status.NO_LABEL, "")]


def test_half_finished_store__says_its_coverage(shards: ImageTextShards, store: Path) -> None:
    (store / shards.shards[1]).with_suffix(".ledger").unlink()
    reader = LabelReader(store)
    assert reader.coverage(shards) == 0.5
    assert reader.read(shards.shards[1], "00003") is None, "no ledger: the tar is not trusted"


def test_bytes__are_stable_and_a_second_run_repeats_nothing(
    shards: ImageTextShards, store: Path, tmp_path: Path
) -> None:
    def none(shard: str):
        raise AssertionError("a committed shard was asked for again")

    before = tree(store)
    labels_from_arrays(tmp_path / "labels", manifest(SCALAR, shards), shards, none)
    assert tree(store) == before
    again = labels_from_arrays(
        tmp_path / "again",
        manifest(SCALAR, shards),
        shards,
        lambda shard: ((k, disparity(k)) for k in shards.keys(shard) if k != "00004"),
    )
    assert tree(again) == before
    with tarfile.open(store / shards.shards[0]) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
    names = [m.name for m in members]
    assert names == [f"0000{i}.{ext}" for i in range(3) for ext in ("png", "json")]


@pytest.mark.filterwarnings("ignore")
def test_webdataset_opens_a_label_tar(shards: ImageTextShards, store: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    url = str(store / shards.shards[0])
    samples = list(webdataset.WebDataset(url, shardshuffle=False, empty_check=False).decode())
    assert [s["__key__"] for s in samples] == ["00000", "00001", "00002"]
    assert samples[1]["json"]["low"] == 1.0


def test_reader__pickles_and_survives_forks(shards: ImageTextShards, store: Path) -> None:
    reader = LabelReader(store)
    places = [shards.locate(i) for i in (0, 5, 2)] * 3
    expected = [reader.read(*place) for place in places]
    copy = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(copy.read(*places[0]).array, expected[0].array, equal_nan=True)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        found = pool.map(reader.read, *zip(*places, strict=True))
        for ours, theirs in zip(expected, found, strict=True):
            assert np.array_equal(ours.array, theirs.array, equal_nan=True)
    reader.close()
    assert reader.read(*places[0]) is not None


def test_all_kinds__and_labels_that_cannot_be_stored(
    shards: ImageTextShards, tmp_path: Path
) -> None:
    classes, normals = ClassMap(("background", "cat")), UnitVector()
    good = {classes: np.ones((4, 6), np.uint8), normals: np.tile([0.0, 0, 1], (4, 6, 1))}
    bad = {classes: np.full((4, 6), 7), normals: np.zeros((4, 6, 3))}
    expected = {classes: Status.BAD_LABEL, normals: Status.NO_VALID_PIXEL}
    for kind in good:
        folder = labels_from_arrays(
            tmp_path / "labels",
            manifest(kind, shards, expert=type(kind).__name__),
            shards,
            lambda shard, kind=kind: (
                (key, bad[kind] if key == "00001" else good[kind]) for key in shards.keys(shard)
            ),
        )
        reader = LabelReader(folder)
        assert reader.statuses() == Counter({Status.OK: 5, expected[kind]: 1})
        stored = reader.read(shards.shards[0], "00000")
        assert stored is not None and np.array_equal(stored.array, good[kind])
        assert stored.shift is None and stored.scale is None


def test_labels_larger_than_the_limit_are_made_smaller(
    shards: ImageTextShards, tmp_path: Path
) -> None:
    folder = labels_from_arrays(
        tmp_path / "labels",
        manifest(SCALAR, shards, max_side=6),
        shards,
        lambda shard: ((key, disparity(key)) for key in shards.keys(shard)),
    )
    stored = LabelReader(folder).read(shards.shards[0], "00000")
    assert stored is not None and stored.array.shape == (4, 6)


def test_unknown_keys_are_refused(shards: ImageTextShards, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        labels_from_arrays(
            tmp_path / "labels",
            manifest(SCALAR, shards),
            shards,
            lambda shard: [("stranger", disparity("1"))],
        )
    assert [p.name for p in (tmp_path / "labels/test-truth").iterdir()] == ["manifest.json"]


def test_manifest__of_another_expert_is_refused(shards: ImageTextShards, store: Path) -> None:
    labels = store.parent
    assert claim_store(labels, manifest(SCALAR, shards)) == store
    for change in (
        {"weights_sha256": "0" * 64},
        {"dataset_id": "other"},
        {"thresholds": {"score": 0.7}},
        {"preprocessing": {"size": 384}},
        {"max_side": 256},
    ):
        with pytest.raises(ValueError, match=rf"(?s){next(iter(change))}.*another folder"):
            claim_store(labels, manifest(SCALAR, shards, **change))
    with pytest.raises(ValueError, match=r"(?s)kind.*codec"):
        claim_store(labels, manifest(UnitVector(), shards))


def test_manifest__absent_or_of_another_version(store: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cliptex label run"):
        LabelReader(tmp_path)
    path = store / "manifest.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps({**content, "version": 4}))
    with pytest.raises(ValueError, match="version 4, this program reads .* 1, 2, 3"):
        LabelReader(store)
    path.write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        LabelReader(store)


def test_folder_name() -> None:
    assert folder_name("playroom:depth") == "playroom-depth"
    with pytest.raises(ValueError, match="name"):
        folder_name("../")


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize("damage", ["short tar", "no tar", "changed tar", "short ledger", "bits"])
def test_damage__names_file_and_remedy(shards: ImageTextShards, store: Path, damage: str) -> None:
    tar = store / shards.shards[0]
    ledger = tar.with_suffix(".ledger")
    if damage == "short tar":
        cut(tar, 700)
    elif damage == "no tar":
        tar.unlink()
    elif damage == "changed tar":
        tar.write_bytes(b"\xff" * tar.stat().st_size)
    elif damage == "short ledger":
        cut(ledger, 150)
    else:
        data = bytearray(ledger.read_bytes())
        data[120] ^= 1
        ledger.write_bytes(data)
    with pytest.raises(ValueError, match=rf"(?s){tar.stem}.*[Rr]emove .*label run"):
        LabelReader(store).read(shards.shards[0], "00000")
