"""Reading: whole files, their hashes, JSON of any origin, and bytes from anywhere in a file.

A local file is read at random by its descriptor, a remote one by range requests that read ahead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from cliptex.files.network import ask
from cliptex.files.paths import AnyPath, Stamp, descriptor_stamp, own, stamp
from cliptex.machine import most_open_files

if TYPE_CHECKING:
    from upath import UPath

# Kept open, of one data set or label store: a closed file costs 20 us more to read from.
OPEN_LOCAL = 1000
OPEN_REMOTE = 64  # each may keep bytes in memory
_SHARES = 8  # of what a process may open: a training reads images and several experts' labels

_LEAST_AHEAD = 64 * 2**10  # bytes: a sample's caption lies beside its image
_MOST_AHEAD = 4 * 2**20
_SMALL = 256 * 2**10  # bytes that may be kept of each open file
_NEAR = 2**20  # a read that begins so close behind the last one belongs to the same walk
_TAIL = 16 * 2**10  # padding at a tar's end


def read_bytes(path: AnyPath) -> bytes:
    """All bytes of a file, local or remote (see `ask`)."""
    return ask(path, path.read_bytes)


def sha256_file(path: AnyPath) -> str:
    """The file's sha256 as 64 hexadecimal digits."""

    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()

    return ask(path, digest)


def sha256_json(value: object) -> str:
    """The sha256 of a JSON value, whatever its spacing and the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def parse_json(data: bytes | str) -> Any:
    """The value in `data`; ValueError says, in one line and without a name, what is wrong."""
    if not data.strip():
        raise ValueError("it is empty")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def load_json(path: AnyPath, what: str = "a file of this project") -> dict[str, Any]:
    """The object in a JSON file; ValueError names a file that is not `what` it should be."""
    try:
        content = parse_json(read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path}: not {what}: no whole JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not {what}: no JSON object")
    return content


class RandomFile(Protocol):
    """A file open for reading at any offset, by several threads."""

    @property
    def stamp(self) -> Stamp:
        """Its version when it was opened."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; fewer only where the file ends."""
        ...


class LocalFile:
    """A descriptor, closed when the last user lets go (also in another thread)."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self.stamp = descriptor_stamp(self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """One pread: no file position is shared, so forked processes are safe."""
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class RemoteFile:
    """Range requests to an fsspec file system, fewer than reads where these are neighbours.

    A read that follows the last one closely doubles how much is fetched ahead, up to 4 MiB; any
    other fetches 64 KiB more than it was asked for. One such stretch is kept in memory.
    """

    def __init__(self, path: UPath) -> None:
        self._path = path
        self.stamp = stamp(path)
        self._kept = (0, b"")  # offset and bytes: replaced in one step, as threads may read it
        self._last = -1  # end of the last read
        self._ahead = _LEAST_AHEAD

    def read(self, offset: int, size: int) -> bytes:
        """From what is kept, else by one request."""
        end = min(offset + size, self.stamp.size)
        start, data = self._kept
        if not start <= offset <= end <= start + len(data):
            start, data = offset, self._fetch(offset, end)
            self._kept = (start, data)
        if end + _TAIL >= self.stamp.size and len(data) > _SMALL:
            self._kept = (0, b"")  # a walk has come to its end: the memory is not needed again
        self._last = end
        return data[offset - start : end - start]

    def _fetch(self, offset: int, end: int) -> bytes:
        walking = 0 <= offset - self._last <= _NEAR
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if walking else _LEAST_AHEAD
        stop = min(end + self._ahead, self.stamp.size)
        if stop <= offset:
            return b""
        self._path = cast("UPath", own(self._path))
        data = ask(self._path, lambda: self._ask_for(offset, stop))
        if len(data) != stop - offset:
            raise ValueError(
                f"{self._path}: the server gave {len(data)} bytes where {stop - offset} were asked "
                "for: it does not answer range requests, or the file changed"
            )
        return data

    def _ask_for(self, offset: int, stop: int) -> bytes:
        found = self._path.fs.cat_file(self._path.path, start=offset, end=stop)
        data = cast(bytes, found)  # text only where a file system was told so
        if len(data) < stop - offset:
            raise ConnectionError(f"{len(data)} of {stop - offset} bytes came")
        return data


def most_open(root: AnyPath) -> int:
    """How many of the files below `root` a process should keep open, which may be fewer than all.

    Local ones as many as the system lets it (an eighth of RLIMIT_NOFILE), up to 1000.
    """
    if not isinstance(root, Path):
        return OPEN_REMOTE
    allowed = most_open_files()
    return OPEN_LOCAL if allowed is None else max(1, min(OPEN_LOCAL, allowed // _SHARES))


def open_random(path: AnyPath) -> RandomFile:
    """Open a file; FileNotFoundError where there is none."""
    return LocalFile(path) if isinstance(path, Path) else RemoteFile(path)


class OpenFiles:
    """At most `limit` files, open in each process where they are read; of more, those read last.

    Pickling drops what is open.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._files: OrderedDict[str, RandomFile] = OrderedDict()

    def get(self, name: str, opener: Callable[[], RandomFile]) -> RandomFile:
        """The file kept under `name`, opened by `opener` where it is not open.

        The caller holds it, so that it outlives its place among the open ones.
        """
        file = self._files.get(name)
        if file is not None and len(self._files) < self._limit:
            return file  # nothing has to make room, so nobody asks which was read last
        self._files.pop(name, None)
        file = file or opener()
        self._files[name] = file
        # No lock (one held during a fork would stop the child): threads may open a file twice or
        # empty the table under each other, both harmless.
        with contextlib.suppress(KeyError):
            while len(self._files) > self._limit:
                self._files.popitem(last=False)
        return file

    def close(self) -> None:
        """Let go of all files."""
        self._files.clear()

    def __getstate__(self) -> dict[str, object]:
        return {"_limit": self._limit, "_files": OrderedDict()}
