"""Files that are either whole or absent, lines that are appended whole, and hashes.

A temporary file holds an exclusive lock (`filelock`), which the kernel drops however its owner
dies. So any run may remove every temporary file that it can lock (`remove_abandoned`): a living
writer's file it cannot. Modes follow the umask, as those of any new file do.

A remote file is written in the machine's temporary folder and put whole. There are no locks on
remote file systems: two jobs there may write the same file twice.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, cast

from filelock import FileLock, Timeout

from cliptex.files.asking import ask
from cliptex.files.paths import READ_ONLY, AnyPath, exists

if TYPE_CHECKING:
    from torch import Tensor
    from upath import UPath

TEMPORARY_PATTERN = ".*.cliptex-tmp"
_PUT = "cliptex-put"  # temporary files of remote ones
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class AtomicFile:
    """A file being written that appears under `path` whole at `commit`, or not at all.

    Locally under a temporary name in the same folder, brought to the disk and renamed; for a
    remote path in the system's temporary folder, put whole. Leaving the `with` block without a
    commit removes what was written and leaves `path` as it was.

    `exclusive` refuses (FileExistsError) to replace an existing file; locally this is atomic, and
    remotely the file is looked for, put, and read back: of two that write at the same moment and
    differ, at most one does not learn that it lost.

    Raises OSError where the place cannot be written to (https is read-only), with the remedy
    where the disk is full.
    """

    def __init__(self, path: AnyPath, *, exclusive: bool = False) -> None:
        self.path = path
        self._exclusive = exclusive
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.temporary = _temporary(path.parent, path.name)
        else:
            self.temporary = _temporary_for(path)
        self._lock = FileLock(self.temporary, blocking=False, thread_local=False)
        self._lock.acquire()
        self.file = _open(self.temporary)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        try:
            self.file.write(data)
        except OSError as error:
            raise explain_full_disk(error, self.path) from error

    def prepare(self) -> None:
        """Bring the bytes to the disk: only a rename, or the network, may fail after this."""
        try:
            self.file.flush()
            if isinstance(self.path, Path):
                sync(self.temporary)
        except OSError as error:
            raise explain_full_disk(error, self.path) from error

    def commit(self, *, durable: bool = False) -> None:
        """Bring the bytes to the disk, or over the network, and the file to its place.

        `durable`: the new name, too, is on the disk before anything that follows.
        """
        try:
            self.prepare()
            if isinstance(self.path, Path):
                self._commit_local(self.path)
                if durable:
                    sync(self.path.parent)
            else:
                self._commit_remote(self.path)
        except OSError as error:
            raise explain_full_disk(error, self.path) from error
        finally:
            self.discard()

    def _commit_local(self, path: Path) -> None:
        if self._exclusive:
            with contextlib.suppress(OSError):  # of file systems without hard links, such as exFAT
                os.link(self.temporary, path)
                self.temporary.unlink()
                return
            if path.exists():
                raise FileExistsError(errno.EEXIST, "there already", str(path))
        self.temporary.replace(path)

    def _commit_remote(self, path: UPath) -> None:
        if self._exclusive and exists(path):
            raise FileExistsError(errno.EEXIST, "there already", str(path))
        put(self.temporary, path)
        if self._exclusive and path.read_bytes() != self.temporary.read_bytes():
            raise FileExistsError(errno.EEXIST, "another job wrote it just now", str(path))

    def discard(self) -> None:
        """Remove the temporary file, if it is still there; after a commit nothing happens."""
        self.temporary.unlink(missing_ok=True)  # before it is unlocked: no sweep may count it
        with contextlib.suppress(OSError):  # a full disk refuses the buffered rest once more
            self.file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()
        if isinstance(error, OSError):
            said = explain_full_disk(error, self.path)
            if said is not error:
                raise said from error


def write_atomic(path: AnyPath, data: bytes, *, exclusive: bool = False) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one.

    A failure (a full disk, say) leaves `path` as it was, and no temporary file. `exclusive` as in
    `AtomicFile`.
    """
    with AtomicFile(path, exclusive=exclusive) as atomic:
        atomic.write(data)
        atomic.commit()


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file whole or not at all, with the mode that the umask gives.

    safetensors' own `save_file` leaves files that nobody but their owner can read (0600). Raises
    OSError that names the file where it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # with torch: a second to import

    with AtomicFile(path) as atomic:
        mode = stat.S_IMODE(os.fstat(atomic.file.fileno()).st_mode)
        try:
            save_file(dict(tensors), atomic.temporary, dict(metadata) if metadata else None)
        except SafetensorError as error:  # of the disk, too
            raise OSError(f"{path} could not be written: {error}") from error
        atomic.temporary.chmod(mode)  # save_file renames a file of its own to this name
        atomic.commit()


def append_lines(path: Path, lines: bytes) -> None:
    """Append whole lines to a file of lines, or nothing; OSError where the disk is full.

    A last line without its end, as some editors and killed processes leave it, is ended first.
    Processes that append at the same time wait for one another.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked_beside(path), path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if lines and not _ended(file, end):
            lines = b"\n" + lines
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[file.write(rest) or 0 :]
            os.fsync(file.fileno())
        except BaseException as error:
            file.truncate(end)
            if isinstance(error, OSError):
                raise explain_full_disk(error, path) from error
            raise


def _ended(file: IO[bytes], end: int) -> bool:
    """Whether a file of `end` bytes is empty or its last line ends."""
    if end == 0:
        return True
    file.seek(end - 1)
    return file.read(1) == b"\n"


@contextlib.contextmanager
def locked_beside(path: Path) -> Iterator[None]:
    """Wait for, and hold, the lock `.NAME.lock` beside a local file.

    The kernel drops it however its holder dies; the empty file stays, so that all wait for one.
    """
    with FileLock(path.with_name(f".{path.name}.lock"), thread_local=False):
        yield


def explain_full_disk(error: OSError, path: AnyPath) -> OSError:
    """The same error with a remedy where the disk or the quota is full; any other unchanged."""
    if error.errno not in _NO_SPACE or str(path) in str(error):
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
    return _sweep(sorted(folder.rglob(TEMPORARY_PATTERN))) if isinstance(folder, Path) else 0


def _sweep(paths: list[Path]) -> int:
    removed = 0
    for path in paths:
        lock = FileLock(path, blocking=False, thread_local=False)
        try:
            with lock:  # of the file that has this name now: filelock looks at it once more
                path.unlink(missing_ok=True)
                removed += 1
        except (Timeout, FileNotFoundError, PermissionError):  # alive, gone, another user's
            continue
    return removed


def remove_durably(path: AnyPath) -> None:
    """Remove a file, if it is there, before anything that follows can be on the disk."""
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
        sync(path.parent)
    elif exists(path):
        path.unlink()


def put(local: Path, path: UPath) -> None:
    """Put a whole local file to a remote path; OSError that names it where that fails (`ask`)."""
    try:
        ask(path, lambda: path.fs.put_file(str(local), path.path))
    except OSError as error:
        if str(path) in str(error):
            raise
        raise OSError(error.errno, f"{path} could not be written: {error}") from error


def sha256_file(path: AnyPath) -> str:
    """The file's sha256 as 64 hexadecimal digits."""

    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()

    return ask(path, digest)


def sha256_json(value: object) -> str:
    """The sha256 of a JSON value, whatever its spacing and the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _temporary(folder: Path, name: str) -> Path:
    return folder / f".{name}.{uuid.uuid4().hex[:16]}.cliptex-tmp"


def _temporary_for(path: UPath) -> Path:
    """Where the bytes of a remote file are until they are put; OSError where nothing can be.

    What killed writers left there is removed, and nobody else's.
    """
    if path.protocol in READ_ONLY:
        raise OSError(
            errno.EROFS, f"{path}: {path.protocol}:// is read-only; write to a folder or s3://"
        )
    folder = Path(tempfile.gettempdir())
    _sweep(sorted(folder.glob(f".{_PUT}.*.cliptex-tmp")))
    return _temporary(folder, _PUT)


def _open(path: Path) -> IO[bytes]:
    return path.open("wb")


def sync(path: Path) -> None:
    """Bring a file, or what a folder lists, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
