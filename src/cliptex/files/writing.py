"""Files that are either whole or absent, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import uuid
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, cast

from cliptex.files.paths import READ_ONLY, AnyPath

if TYPE_CHECKING:
    from upath import UPath


class AtomicFile:
    """A file being written that appears under `path` whole at `commit`, or not at all.

    Locally under a temporary name in the same folder, brought to the disk and renamed; for a
    remote path in the system's temporary folder, put whole. Leaving the `with` block without a
    commit removes what was written and leaves `path` as it was.

    Raises OSError where the place cannot be written to (https is read-only).
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        else:
            self._temporary = temporary_for(path)
        self.file = _open(self._temporary)

    def commit(self) -> None:
        """Bring the bytes to their place."""
        self.file.flush()
        if isinstance(self.path, Path):
            os.fsync(self.file.fileno())
            self.file.close()
            self._temporary.replace(self.path)
        else:
            self.file.close()
            put(self._temporary, self.path)

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        try:
            self.file.close()
        except OSError:  # closing flushes, which fails once more on a full disk
            pass
        finally:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


def _open(path: Path) -> IO[bytes]:
    return path.open("wb")


def temporary_for(path: UPath) -> Path:
    """A name for the bytes of a remote file until they are put; OSError where nothing can be."""
    if path.protocol in READ_ONLY:
        raise OSError(
            errno.EROFS, f"{path}: {path.protocol}:// is read-only; write to a folder or s3://"
        )
    return Path(tempfile.gettempdir()) / f"cliptex-{uuid.uuid4().hex}.tmp"


def put(local: Path, path: UPath) -> None:
    """Put a whole local file to a remote path; OSError that names it where that fails."""
    try:
        path.fs.put_file(str(local), path.path)
    except OSError as error:
        if str(path) in str(error):
            raise
        raise OSError(error.errno, f"{path} could not be written: {error}") from error


def write_atomic(path: AnyPath, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one.

    A failure (a full disk, say) leaves `path` as it was, and no temporary file.
    """
    with AtomicFile(path) as atomic:
        atomic.file.write(data)
        atomic.commit()


def sha256_file(path: AnyPath) -> str:
    """The file's sha256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
