"""Writing: files, folders and appended lines that are either whole or absent, and claims to work.

All other modules write through this one. A temporary file holds an exclusive lock (`filelock`),
which the kernel drops however its owner dies. So any run may remove every temporary file that it
can lock (`remove_abandoned`): it cannot lock that of a living writer. Temporary folders have no
lock: only the owner of the folder above them may remove them (`sweep`). Modes follow the umask, as
those of any new file do.

A remote file is written in the machine's temporary folder and put whole. There are no locks on
remote file systems: two jobs there may write the same file twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from cliptex.files.network import ask
from cliptex.files.paths import READ_ONLY, AnyPath, exists

if TYPE_CHECKING:
    from filelock import FileLock
    from torch import Tensor
    from upath import UPath

TEMPORARY_PATTERN = ".*.cliptex-tmp"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16,32}\.(cliptex-)?tmp")  # of this version and before
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
        self._lock = _lock(self.temporary)
        self._lock.acquire()
        self.file: IO[bytes] = self.temporary.open("wb")

    def write(self, data: bytes) -> None:
        """Append bytes."""
        with full_disk_explained(self.path):
            self.file.write(data)

    def prepare(self) -> None:
        """Bring the bytes to the disk: only a rename, or the network, may fail after this."""
        with full_disk_explained(self.path):
            self.file.flush()
            if isinstance(self.path, Path):
                sync(self.temporary)

    def commit(self, *, durable: bool = False) -> None:
        """Bring the bytes to the disk, or over the network, and the file to its place.

        `durable`: the new name, too, is on the disk before anything that follows.
        """
        try:
            with full_disk_explained(self.path):
                self.prepare()
                if isinstance(self.path, Path):
                    self._commit_local(self.path)
                    if durable:
                        sync(self.path.parent)
                else:
                    self._commit_remote(self.path)
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
            with full_disk_explained(self.path):
                raise error


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


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder to fill, which replaces `target` when the block ends without an error.

    With an error nothing is left, nor any folder above `target` that was made for it. Raises
    OSError with the remedy where the disk is full.
    """
    made = [parent for parent in target.absolute().parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target.parent, target.name)
    temporary.mkdir()
    try:
        with full_disk_explained(target):
            yield temporary
            for path in temporary.iterdir():
                sync(path)
            sync(temporary)
            before = _set_aside(target) if target.exists() else None
            temporary.rename(target)
            sync(target.parent)
            if before is not None:
                remove_whole(before)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # somebody else has put something there
                parent.rmdir()
        raise


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
            with full_disk_explained(path):
                rest = memoryview(lines)
                while rest:
                    rest = rest[file.write(rest) or 0 :]
                os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
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
    with _lock(path.with_name(f".{path.name}.lock"), wait=True):
        yield


class Claim:
    """The right to do one piece of work, until `release` or the end of the `with` block.

    It is the kernel's lock (`filelock`) on a file of its own, so it ends however its holder dies;
    the file is removed with it.
    """

    def __init__(self, path: Path | None, lock: FileLock | None) -> None:
        self._path = path
        self._lock = lock

    @classmethod
    def take(cls, path: AnyPath) -> Claim | None:
        """The claim that `path` stands for; None while another process or thread has it.

        Folders above it are made. There are no locks on remote file systems: a claim to a remote
        path keeps nobody out.
        """
        if not isinstance(path, Path):
            return cls(None, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        try:
            lock.acquire()
        except TimeoutError:
            return None
        return cls(path, lock)

    def release(self) -> None:
        """Let others take the claim; once more does nothing."""
        if self._lock is None or self._path is None or not self._lock.is_locked:
            return
        self._path.unlink(missing_ok=True)  # before it is unlocked: nobody may lock a lost file
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


@contextlib.contextmanager
def full_disk_explained(path: AnyPath) -> Iterator[None]:
    """Add the remedy to an OSError of the block where the disk or the quota is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE or str(path) in str(error):
            raise
        raise OSError(
            error.errno,
            f"no space left while writing {path}; nothing half-written was kept and what was "
            "committed before is safe: free some space and run the same command again",
        ) from error


def check_can_make(folder: AnyPath, what: str) -> None:
    """OSError in one line where the local `folder` neither is one nor can be made; writes nothing.

    `what` says in the message what the folder is for.
    """
    if not isinstance(folder, Path):
        return
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except OSError as error:
        raise OSError(f"{folder}: {what} cannot be made: {error.strerror}") from error
    if not nearest.is_dir():
        name = "it is" if nearest == folder else f"{nearest} is"
        raise NotADirectoryError(
            f"{folder}: {what} cannot be made: {name} a file; give another path"
        )
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:  # it names the temporary file
        raise OSError(
            error.errno,
            f"{what} cannot be written in {nearest}: {error.strerror}; give another path",
            str(folder),
        ) from error


def remove_abandoned(folder: AnyPath) -> int:
    """Remove temporary files below `folder` whose writers are dead; returns how many.

    A remote folder never holds any.
    """
    if not isinstance(folder, Path):
        return 0
    return _sweep([path for path in sorted(folder.rglob(TEMPORARY_PATTERN)) if path.is_file()])


def remove_whole(path: Path) -> None:
    """Remove a file, or a folder at once: what a kill leaves of it has a temporary name."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path if _TEMPORARY.fullmatch(path.name) else _set_aside(path))


def sweep(folder: Path) -> None:
    """Remove the half-written files and folders in `folder`; nobody may be writing there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name):
            remove_whole(path)


def _sweep(paths: list[Path]) -> int:
    removed = 0
    for path in paths:
        lock = _lock(path)
        try:
            with lock:  # of the file that has this name now: filelock looks at it once more
                path.unlink(missing_ok=True)
                removed += 1
        except (TimeoutError, FileNotFoundError, PermissionError):  # alive, gone, another user's
            continue
    return removed


def remove_durably(path: AnyPath) -> None:
    """Remove a file, if it is there, before anything that follows can be on the disk."""
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
        sync(path.parent)
    elif exists(path):
        path.unlink()


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


def _set_aside(path: Path) -> Path:
    """Rename a file or folder to a temporary name, which a sweep removes; returns that."""
    return path.rename(_temporary(path.parent, path.name))


def put(local: Path, path: UPath) -> None:
    """Put a whole local file to a remote path; OSError that names it where that fails (`ask`)."""
    try:
        ask(path, lambda: path.fs.put_file(str(local), path.path))
    except OSError as error:
        if str(path) in str(error):
            raise
        raise OSError(error.errno, f"{path} could not be written: {error}") from error


def sync(path: Path) -> None:
    """Bring a file, or what a folder lists, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path, *, wait: bool = False) -> FileLock:
    """The kernel's lock on a file, which another thread than its holder's may release."""
    from filelock import FileLock  # a tenth of a second, which --help does without

    return FileLock(path, blocking=wait, thread_local=False)
