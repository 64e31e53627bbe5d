"""Ledgers and commits: exact round trips, nothing half-written, full disks explained."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import Counter
from itertools import count, groupby
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from cliptex.files import remove_abandoned, sha256_file, write_atomic
from cliptex.labels.kinds import ClassMap
from cliptex.labels.ledger import Entry, Status, ledger_bytes, read_ledger
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
    path.write_bytes(ledger_bytes(entries, 99, "ab" * 32))
    ledger = read_ledger(path)
    assert len(ledger) == 4 and ledger.tar_size == 99 and ledger.tar_sha256 == "ab" * 32
    assert [ledger.find(entry.key) for entry in entries] == [0, 1, 2, 3]
    assert ledger.find("") is None and ledger.find("zzz") is None and ledger.find("bb") is None
    assert ledger.rows[0]["size"] == 2**33
    assert ledger.message(1) == ledger.message(2) == "lost <X> again", "addresses differ per run"
    assert ledger.message(0) == ledger.message(3) == ""
    path.write_bytes(ledger_bytes([], 0, "00" * 32))
    assert read_ledger(path).find("a") is None


def test_writer__without_commit_leaves_nothing(tmp_path: Path) -> None:
    label = ClassMap(("a",)).encode(np.zeros((2, 2), np.uint8))
    with pytest.raises(KeyboardInterrupt), ShardLabelWriter(tmp_path, "s/0.tar") as writer:
        writer.add("k", label)
        raise KeyboardInterrupt
    assert tree(tmp_path) == {}


def test_writer__the_tar_is_on_the_disk_before_the_ledger_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power failure may leave a ledger beside no tar."""
    real, seen = os.fsync, []

    def noted(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
            seen.append(sorted(p.name for p in tmp_path.glob("0.*")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with ShardLabelWriter(tmp_path, "0.tar") as writer:
        writer.add("k", ClassMap(("a",)).encode(np.zeros((2, 2), np.uint8)))
        writer.commit()
    assert ["0.tar"] in seen and seen[-1] == ["0.ledger", "0.tar"]


def test_writer__of_two_the_first_to_commit_stays(tmp_path: Path) -> None:
    label = ClassMap(("a",)).encode(np.zeros((2, 2), np.uint8))
    with ShardLabelWriter(tmp_path, "0.tar") as one, ShardLabelWriter(tmp_path, "0.tar") as two:
        one.add("k", label)
        two.fail("k", Status.EXPERT_ERROR, "slower")
        one.commit()
        two.commit()
    assert sorted(tree(tmp_path)) == ["0.ledger", "0.tar"]
    assert read_ledger(tmp_path / "0.ledger").counts() == Counter({Status.OK: 1})


REPLACING = """
import os, shutil, signal, sys
from pathlib import Path
from cliptex.labels.ledger import Status
from cliptex.labels.writer import ShardLabelWriter

def commit(folder, message, replace):
    with ShardLabelWriter(folder, "0.tar") as writer:
        writer.fail("k", Status.EXPERT_ERROR, message)
        writer.commit(replace=replace)

def counted(step):
    def do(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments, **options)
    return do

for number in range(1, 1000):
    folder = Path(sys.argv[1]) / str(number)
    commit(folder, "old", False)
    child = os.fork()
    if child == 0:
        left = number
        os.fsync = counted(os.fsync)
        Path.replace, Path.unlink = counted(Path.replace), counted(Path.unlink)
        commit(folder, "new", True)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_writer__that_replaces_and_is_killed_at_any_step(tmp_path: Path) -> None:
    """A ledger is that of the tar beside it, or there is a tar alone: nothing is ever lost."""
    subprocess.run([sys.executable, "-c", REPLACING, str(tmp_path)], check=True)
    states: list[str] = []
    for folder in sorted(tmp_path.iterdir(), key=lambda path: int(path.name)):
        remove_abandoned(folder)
        assert (folder / "0.tar").exists()
        if is_committed(folder, "0.tar"):
            ledger = read_ledger(folder / "0.ledger")
            assert ledger.tar_sha256 == sha256_file(folder / "0.tar")
            states.append(ledger.message(0))
        else:
            states.append("alone")
    order = [state for state, _ in groupby(states)]
    assert order == ["old", "alone", "new"] and states.count("old") >= 3


@pytest.mark.parametrize("number", [1, 2])
def test_writer__that_replaces_on_a_full_disk__leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whether the tar or the ledger is the one that finds no room."""
    label = ClassMap(("a",)).encode(np.zeros((2, 2), np.uint8))
    with ShardLabelWriter(tmp_path, "0.tar") as writer:
        writer.add("k", label)
        writer.commit()
    before, real, calls = tree(tmp_path), os.fsync, count(1)

    def full(descriptor: int) -> None:
        if next(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match="free some space"),
        ShardLabelWriter(tmp_path, "0.tar") as writer,
    ):
        writer.fail("k", Status.EXPERT_ERROR)
        writer.commit(replace=True)
    assert tree(tmp_path) == before


def test_writer__replaces_a_remote_shard(memory: UPath) -> None:
    for message in ("old", "new"):
        with ShardLabelWriter(memory, "0.tar") as writer:
            writer.fail("k", Status.EXPERT_ERROR, message)
            writer.commit(replace=True)
        ledger = read_ledger(memory / "0.ledger")
        assert ledger.message(0) == message
        assert ledger.tar_sha256 == sha256_file(memory / "0.tar")


def test_writer__refuses_to_leave_the_folder(tmp_path: Path) -> None:
    for shard in ("../evil.tar", "/evil.tar"):
        with pytest.raises(ValueError, match="leaves"):
            ShardLabelWriter(tmp_path, shard)


def test_committed_shards__from_one_listing(tmp_path: Path, memory: UPath) -> None:
    for folder in (tmp_path, memory):
        for shard in ("a/0.tar", "b.c.tar"):
            with ShardLabelWriter(folder, shard) as writer:
                writer.fail("k", Status.NO_LABEL)
                writer.commit()
        write_atomic(folder / "torn.tar", b"without a ledger")
        assert committed_shards(folder) == {"a/0.tar", "b.c.tar"}
        assert is_committed(folder, "a/0.tar") and not is_committed(folder, "torn.tar")
