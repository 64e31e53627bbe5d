"""Locks that keep two runs on one machine or file system from labelling a shard twice."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from cliptex.files import AnyPath
from cliptex.labels.writer import label_tar


class ShardLock:
    """The right to label one shard of one store; a context manager, or `release` it.

    The lock is the kernel's (`filelock`) on a file beside the shard's labels, so it ends however
    its owner dies; `remove_abandoned` clears the file away. Remote stores have no locks: there,
    two runs may label the same shard, and the second finds it committed.
    """

    def __init__(self, path: Path | None, lock: FileLock | None) -> None:
        self._path = path
        self._lock = lock

    @classmethod
    def take(cls, folder: AnyPath, shard: str) -> ShardLock | None:
        """The lock of `shard` in the store `LABELS/EXPERT`, or None where another run holds it."""
        tar = label_tar(folder, shard)
        if not isinstance(tar, Path):
            return cls(None, None)
        tar.parent.mkdir(parents=True, exist_ok=True)
        path = tar.with_name(f".{tar.name}.lock.cliptex-tmp")
        lock = FileLock(path, blocking=False, thread_local=False)  # another thread releases it
        try:
            lock.acquire()
        except Timeout:
            return None
        return cls(path, lock)

    def release(self) -> None:
        """Let others label the shard; once more does nothing."""
        if self._lock is None or self._path is None or not self._lock.is_locked:
            return
        self._path.unlink(missing_ok=True)  # before it is unlocked: nobody may lock a lost file
        self._lock.release()

    def __enter__(self) -> ShardLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
