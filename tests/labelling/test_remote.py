"""Labelling a remote data set into a remote store: the same bytes, resumed and refused alike."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from cliptex.files import network, walk
from cliptex.labelling.engine import label_shards
from cliptex.labelling.options import LabelOptions
from cliptex.labelling.stores import expert_folders, label_status
from cliptex.labelling.verify import verify_labels
from cliptex.labels.reader import LabelReader
from cliptex.shards.dataset import ImageTextShards


@pytest.fixture
def remote(shards: ImageTextShards, memory: UPath, tmp_path: Path) -> ImageTextShards:
    """The shards of the fixture `shards`, copied to memory://."""
    for name in shards.shards:
        (memory / "data" / name).write_bytes((shards.root / name).read_bytes())
    return ImageTextShards("memory://store/data", cache=tmp_path / "cache")


def contents(root: Path | UPath) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in walk(root)}


def test_the_store_is_the_same_byte_for_byte(
    shards, remote, make_expert, memory: UPath, tmp_path: Path
) -> None:
    local = label_shards(shards, [make_expert()], tmp_path / "labels")[0]
    report = label_shards(remote, [make_expert()], memory / "labels")[0]
    assert report.statuses == {"ok": 12} and str(report.folder) == "memory://store/labels/numpy"
    assert contents(report.folder) == contents(local.folder)
    assert len(contents(local.folder)) == 7
    again = label_shards(remote, [make_expert()], memory / "labels")[0]
    assert (again.shards_done, again.shards_skipped, again.images) == (0, 3, 0)
    mixed = label_shards(shards, [make_expert()], memory / "labels")[0]
    assert mixed.shards_skipped == 3, "the data set is the same wherever it lies"


def test_read_checked_and_counted(remote, make_expert, memory: UPath) -> None:
    folder = label_shards(remote, [make_expert()], memory / "labels")[0].folder
    reader = LabelReader("memory://store/labels/numpy")
    assert reader.shards == remote.shards and reader.coverage(remote) == 1
    shard, key = remote.locate(5)
    stored = reader.read(shard, key)
    assert stored is not None and stored.array.shape == (20, 30)
    copy = pickle.loads(pickle.dumps(reader)).read(shard, key)
    assert copy is not None and np.array_equal(copy.array, stored.array)
    assert verify_labels(remote, folder).ok
    assert expert_folders(memory / "labels") == [folder] == expert_folders(folder)
    (status,) = label_status(remote, memory / "labels")
    assert (status.shards_labelled, status.images_labelled) == (3, 12)


def test_another_expert_is_refused(remote, make_expert, memory: UPath) -> None:
    label_shards(remote, [make_expert()], memory / "labels")
    other = make_expert()
    with pytest.raises(ValueError, match="memory://store/labels/numpy.*fields differ"):
        label_shards(remote, [other], memory / "labels", LabelOptions(max_side=64))


def test_damage_of_a_remote_store_names_file_and_remedy(remote, make_expert, memory: UPath) -> None:
    folder = label_shards(remote, [make_expert()], memory / "labels")[0].folder
    tar = folder / "tiny-00001.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    (folder / "tiny-00002.tar").unlink()
    reader = LabelReader(folder)
    with pytest.raises(ValueError, match="numpy/tiny-00001.tar is damaged: its size is not"):
        reader.read("tiny-00001.tar", "00004")
    with pytest.raises(ValueError, match="tiny-00002.tar is damaged: it does not exist"):
        reader.read("tiny-00002.tar", "00008")


def test_an_interrupted_run_leaves_whole_shards_and_goes_on(
    shards, remote, make_expert, memory: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "system-temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    whole = label_shards(shards, [make_expert()], tmp_path / "whole")[0]

    def lost(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 6:
            raise KeyboardInterrupt
        return image.mean(axis=2, dtype=np.float32)

    with pytest.raises(KeyboardInterrupt):
        label_shards(remote, [make_expert(lost)], memory / "labels", LabelOptions(batch_size=2))
    left = walk(memory / "labels" / "numpy")
    assert list(left) == ["manifest.json", "tiny-00000.ledger", "tiny-00000.tar"]
    assert list(temporary.iterdir()) == []
    label_shards(remote, [make_expert()], memory / "labels", LabelOptions(batch_size=2))
    assert contents(memory / "labels" / "numpy") == contents(whole.folder)


def test_a_network_that_fails_at_commit_names_the_file(
    remote, make_expert, memory: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = type(memory.fs).put_file

    def fail(self, source: str, target: str, **options: object) -> None:
        if target.endswith("00001.tar"):
            raise ConnectionResetError("connection reset")
        real(self, source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory.fs), "put_file", fail)
        patch.setattr(network, "PAUSE", 0.001)
        why = r"tiny-00001\.tar: no complete answer in 4 tries \(connection reset\)"
        with pytest.raises(OSError, match=why):
            label_shards(remote, [make_expert()], memory / "labels")
    assert "tiny-00001.ledger" not in walk(memory / "labels" / "numpy")
    assert label_shards(remote, [make_expert()], memory / "labels")[0].shards_skipped == 1
