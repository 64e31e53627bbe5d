"""A shard's lock: one owner at a time, gone with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliptex.labelling.locks import ShardLock
from cliptex.labels.commit import remove_abandoned


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


def test_a_file_that_its_owner_removed_meanwhile__is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening and our locking the owner removes the file: it must be made anew."""
    path = tmp_path / ".a.tar.lock.cliptex-tmp"
    opened = Path.open
    calls = []

    def open_then_lose(self: Path, *arguments, **options):
        file = opened(self, *arguments, **options)
        calls.append(self)
        if len(calls) == 1:
            path.unlink()
        return file

    monkeypatch.setattr(Path, "open", open_then_lose)
    lock = ShardLock.take(tmp_path, "a.tar")
    assert lock is not None and calls == [path, path] and path.exists()
    lock.release()
