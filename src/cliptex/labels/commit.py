"""Temporary files that other runs can tell from abandoned ones, and their atomic commit.

A local file under construction holds an exclusive lock (flock), which the kernel drops however its
owner dies. So any run may remove every temporary file that it can lock: a living writer's file
it cannot.

A remote file is written in the machine's temporary folder and put whole. There are no locks there:
two jobs on one remote store may label a shard twice, which writes the same bytes twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from cliptex.files import AnyPath, exists, put, temporary_for

if TYPE_CHECKING:
    from upath import UPath

TEMPORARY_PATTERN = ".*.cliptex-tmp"


class CommitFile:
    """A file that appears under `path` whole, at `commit`, or not at all.

    `exclusive` refuses (FileExistsError) to replace an existing file; locally this is atomic, and
    remotely the file is looked for, put, and read back: of two that write at the same moment and
    differ, at most one does not learn that it lost. Any write may raise OSError with a message
    that names the file and says how to go on where the disk is full.
    """

    def __init__(self, path: AnyPath, *, exclusive: bool = False) -> None:
        self.path = path
        self._exclusive = exclusive
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary, self._file = _open_locked(path)
        else:
            self._temporary = temporary_for(path)
            self._file: IO[bytes] = self._temporary.open("xb")

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

    def prepare(self) -> None:
        """Bring the bytes to the disk: only a rename, or the network, may fail after this."""
        try:
            self._file.flush()
            if isinstance(self.path, Path):
                os.fsync(self._file.fileno())
        except OSError as error:
            raise explain_full_disk(error, self.path) from error

    def commit(self) -> None:
        """Bring the bytes to the disk, or over the network, and the file to its place."""
        try:
            self.prepare()
            if isinstance(self.path, Path):
                self._commit_local(self.path)
            else:
                self._commit_remote(self.path)
        except OSError as error:
            raise explain_full_disk(error, self.path) from error
        finally:
            self.discard()

    def _commit_local(self, path: Path) -> None:
        if self._exclusive:
            os.link(self._temporary, path)
            self._temporary.unlink()
        else:
            self._temporary.replace(path)
        _sync_folder(path.parent)

    def _commit_remote(self, path: UPath) -> None:
        if self._exclusive and exists(path):
            raise FileExistsError(errno.EEXIST, "there already", str(path))
        put(self._temporary, path)
        if self._exclusive and path.read_bytes() != self._temporary.read_bytes():
            raise FileExistsError(errno.EEXIST, "another job wrote it just now", str(path))

    def discard(self) -> None:
        """Remove the temporary file, if it is still there; after a commit nothing happens."""
        self._temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a full disk refuses the buffered rest once more
            self._file.close()


def write_committed(path: AnyPath, data: bytes, *, exclusive: bool = False) -> None:
    """Write a whole file at once, as `CommitFile` does."""
    with CommitFile(path, exclusive=exclusive) as file:
        file.write(data)
        file.commit()


def explain_full_disk(error: OSError, path: AnyPath) -> OSError:
    """The same error with a remedy where the disk or the quota is full; any other unchanged."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    return OSError(
        error.errno,
        f"no space left while writing {path}; nothing half-written was kept and what was "
        "committed before is safe: free some space and run the same command again",
    )


def remove_abandoned(folder: AnyPath) -> int:
    """Remove temporary files below `folder` whose writers are dead; returns how many.

    A remote folder never holds any.
    """
    removed = 0
    if not isinstance(folder, Path):
        return removed
    for path in sorted(folder.rglob(TEMPORARY_PATTERN)):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_at(path, file):  # else a living run has made one of that name since
                    path.unlink(missing_ok=True)
                    removed += 1
        except (BlockingIOError, FileNotFoundError):
            continue
    return removed


def is_at(path: Path, file: IO[bytes]) -> bool:
    """Whether an open file is still the one that `path` names."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def remove_committed(path: AnyPath) -> None:
    """Remove a file, if it is there, before anything that follows can be on the disk."""
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)
    elif exists(path):
        path.unlink()


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
    """Make a rename or a removal durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
