"""A shard's lock: one owner at a time, gone with it."""

from __future__ import annotations

from pathlib import Path

from cliptex.files import remove_abandoned
from cliptex.labelling.locks import ShardLock


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    first = ShardLock.take(tmp_path, "deep/a.tar")
    assert first is not None
    assert ShardLock.take(tmp_path, "deep/a.tar") is None
    with_other = ShardLock.take(tmp_path, "deep/b.tar")
    assert with_other is not None
    assert remove_abandoned(tmp_path) == 0, "a living owner's file stays"
    first.release()
    first.release()
    with_other.release()
    with ShardLock.take(tmp_path, "deep/a.tar") as again:  # pyright: ignore[reportOptionalContextManager]
        assert again is not None
        assert ShardLock.take(tmp_path, "deep/a.tar") is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_dead_owners_file__is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".a.tar.lock.cliptex-tmp").write_bytes(b"")
    lock = ShardLock.take(tmp_path, "a.tar")
    assert lock is not None
    lock.release()
    (tmp_path / ".a.tar.lock.cliptex-tmp").write_bytes(b"")
    assert remove_abandoned(tmp_path) == 1
