"""Ledgers and commits: exact round trips, nothing half-written, full disks explained."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from cliptex.files import walk
from cliptex.labels import commit
from cliptex.labels.codecs import encode
from cliptex.labels.kinds import ClassMap
from cliptex.labels.ledger import Entry, Status, read_ledger, write_ledger
from cliptex.labels.writer import ShardLabelWriter, committed_shards, is_committed


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_ledger__round_trip(tmp_path: Path) -> None:
    entries = [
        Entry(key="käfer/1", status=Status.OK, offset=512, size=2**33, meta_offset=7, meta_size=9),
        Entry(key="b" * 200, status=Status.EXPERT_ERROR, message="lost <X at 0x7f00>\nagain"),
        Entry(key="c", status=Status.EXPERT_ERROR, message="lost <X at 0x7f11> again"),
        Entry(key="a", status=Status.DECODE_ERROR),
    ]
    path = tmp_path / "x.ledger"
    write_ledger(path, entries, 99, "ab" * 32)
    ledger = read_ledger(path)
    assert len(ledger) == 4 and ledger.tar_size == 99 and ledger.tar_sha256 == "ab" * 32
    assert [ledger.find(entry.key) for entry in entries] == [0, 1, 2, 3]
    assert ledger.find("") is None and ledger.find("zzz") is None and ledger.find("bb") is None
    assert ledger.rows[0]["size"] == 2**33
    assert ledger.message(1) == ledger.message(2) == "lost <X> again", "addresses differ per run"
    assert ledger.message(0) == ledger.message(3) == ""
    write_ledger(path, [], 0, "00" * 32)
    assert read_ledger(path).find("a") is None


def test_writer__without_commit_leaves_nothing(tmp_path: Path) -> None:
    label = encode(ClassMap(("a",)), np.zeros((2, 2), np.uint8))
    with pytest.raises(KeyboardInterrupt), ShardLabelWriter(tmp_path, "s/0.tar") as writer:
        writer.add("k", label)
        raise KeyboardInterrupt
    assert tree(tmp_path) == {}


def test_writer__of_two_the_first_to_commit_stays(tmp_path: Path) -> None:
    label = encode(ClassMap(("a",)), np.zeros((2, 2), np.uint8))
    with ShardLabelWriter(tmp_path, "0.tar") as one, ShardLabelWriter(tmp_path, "0.tar") as two:
        one.add("k", label)
        two.fail("k", Status.EXPERT_ERROR, "slower")
        one.commit()
        two.commit()
    assert sorted(tree(tmp_path)) == ["0.ledger", "0.tar"]
    assert read_ledger(tmp_path / "0.ledger").counts() == Counter({Status.OK: 1})


def test_writer__refuses_to_leave_the_folder(tmp_path: Path) -> None:
    for shard in ("../evil.tar", "/evil.tar"):
        with pytest.raises(ValueError, match="leaves"):
            ShardLabelWriter(tmp_path, shard)


@pytest.mark.parametrize("when", ["write", "fsync"])
def test_full_disk__is_explained_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "fsync":
        monkeypatch.setattr(commit.os, "fsync", full)
    else:
        monkeypatch.setattr(commit, "_open_locked", lambda path: _failing_file(path, full))
    with pytest.raises(OSError, match="run the same command again") as caught:
        commit.write_committed(tmp_path / "x.tar", b"x")
    assert caught.value.errno == errno.ENOSPC
    assert tree(tmp_path) == {}


def _failing_file(path: Path, full) -> tuple[Path, io.BufferedWriter]:
    temporary = path.with_name(".x.cliptex-tmp")

    class Full(io.BufferedWriter):
        write = full

    return temporary, Full(io.FileIO(temporary, "w"))


def test_abandoned_files_go_living_ones_stay(tmp_path: Path) -> None:
    dead = tmp_path / "sub" / ".0.tar.0123.cliptex-tmp"
    dead.parent.mkdir()
    dead.write_bytes(b"half")
    with commit.CommitFile(tmp_path / "sub" / "1.tar") as living:
        living.write(b"whole")
        assert commit.remove_abandoned(tmp_path) == 1
        assert not dead.exists()
        living.commit()
    assert tree(tmp_path) == {os.path.join("sub", "1.tar"): b"whole"}


def test_remote__whole_or_absent(memory: UPath, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), commit.CommitFile(memory / "a/x.tar") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert walk(memory) == {} and list(tmp_path.iterdir()) == []
    commit.write_committed(memory / "a/x.tar", b"whole")
    commit.write_committed(memory / "a/x.tar", b"another")
    assert (memory / "a/x.tar").read_bytes() == b"another"
    assert list(tmp_path.iterdir()) == []
    assert commit.remove_abandoned(memory) == 0


@pytest.mark.parametrize("remote", [False, True])
def test_exclusive__keeps_what_was_there(tmp_path: Path, memory: UPath, remote: bool) -> None:
    path = (memory if remote else tmp_path) / "manifest.json"
    commit.write_committed(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        commit.write_committed(path, b"second", exclusive=True)
    assert path.read_bytes() == b"first"
    assert list(walk(path.parent)) == ["manifest.json"]


def test_exclusive__of_two_remote_writers_the_loser_learns_it(memory: UPath, monkeypatch) -> None:
    """Between this writer's look and its reading back, another one puts its own bytes."""
    path, real = memory / "manifest.json", commit.put

    def overtaken(local: Path, target: UPath) -> None:
        real(local, target)
        target.write_bytes(b"the other's")

    monkeypatch.setattr(commit, "put", overtaken)
    with pytest.raises(FileExistsError):
        commit.write_committed(path, b"mine", exclusive=True)
    assert path.read_bytes() == b"the other's"


def test_committed_shards__from_one_listing(tmp_path: Path, memory: UPath) -> None:
    for folder in (tmp_path, memory):
        for shard in ("a/0.tar", "b.c.tar"):
            with ShardLabelWriter(folder, shard) as writer:
                writer.fail("k", Status.NO_LABEL)
                writer.commit()
        commit.write_committed(folder / "torn.tar", b"without a ledger")
        assert committed_shards(folder) == {"a/0.tar", "b.c.tar"}
        assert is_committed(folder, "a/0.tar") and not is_committed(folder, "torn.tar")
