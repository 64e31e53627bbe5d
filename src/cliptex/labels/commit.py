"""Temporary files that other runs can tell from abandoned ones, and their atomic commit.

A file under construction holds an exclusive lock (flock), which the kernel drops however its
owner dies. So any run may remove every temporary file that it can lock: a living writer's file
it cannot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import IO

TEMPORARY_PATTERN = ".*.cliptex-tmp"


class CommitFile:
    """A file that appears under `path` whole, at `commit`, or not at all.

    `exclusive` refuses (FileExistsError) to replace an existing file, atomically. Any write may
    raise OSError with a message that names the file and says how to go on where the disk is full.
    """

    def __init__(self, path: Path, *, exclusive: bool = False) -> None:
        self.path = path
        self._exclusive = exclusive
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary, self._file = _open_locked(path)

    def __enter__(self) -> CommitFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        try:
            self._file.write(data)
        except OSError as error:
            raise explain_full_disk(error, self.path) from error

    def commit(self) -> None:
        """Bring the bytes to the disk and the file to its place."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            if self._exclusive:
                os.link(self._temporary, self.path)
                self._temporary.unlink()
            else:
                self._temporary.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise explain_full_disk(error, self.path) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the temporary file, if it is still there; after a commit nothing happens."""
        self._temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a full disk refuses the buffered rest once more
            self._file.close()


def write_committed(path: Path, data: bytes, *, exclusive: bool = False) -> None:
    """Write a whole file at once, as `CommitFile` does."""
    with CommitFile(path, exclusive=exclusive) as file:
        file.write(data)
        file.commit()


def explain_full_disk(error: OSError, path: Path) -> OSError:
    """The same error with a remedy where the disk or the quota is full; any other unchanged."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OSError(
        error.errno,
        f"no space left while writing {path}; nothing half-written was kept and what was "
        "committed before is safe: free some space and run the same command again",
    )


def remove_abandoned(folder: Path) -> int:
    """Remove temporary files below `folder` whose writers are dead; returns how many."""
    removed = 0
    for path in sorted(folder.rglob(TEMPORARY_PATTERN)):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                removed += 1
        except (BlockingIOError, FileNotFoundError):
            continue
    return removed


def _open_locked(path: Path) -> tuple[Path, IO[bytes]]:
    """A new locked temporary file beside `path`."""
    while True:
        name = f".{path.name}.{uuid.uuid4().hex}.cliptex-tmp"
        temporary = path.with_name(name)
        file = temporary.open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if temporary.exists():
                return temporary, file
        except BlockingIOError:
            pass  # a sweep caught the file between its creation and its lock: take another
        file.close()


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
