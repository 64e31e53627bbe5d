"""Indices of shards kept in a local folder: a small head read at opening, a body when needed.

One file per shard, little-endian: a head of 160 bytes, the problems as UTF-8 lines, the table, the
keys as NUL-padded UTF-8 of one width.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from cliptex.files import AnyPath, Stamp, write_atomic
from cliptex.shards.index import TABLE, ShardIndex, damage_of

_MAGIC = b"CLIPTEXI"
_VERSION = 4
# magic, version, width of a key, samples, size of the shard, sha256 of its version, sha256 of its
# keys, bytes of the problems, CRC-32 of table and keys, CRC-32 of the problems
_HEAD = struct.Struct("<8sIIQQ32s32sQII48x")


@dataclass(frozen=True, kw_only=True)
class IndexHead:
    """What opening a data set needs to know of a shard.

    Attributes:
        count: samples.
        size: bytes of the shard.
        digest: sha256 of the keys in order, hexadecimal.
        problems: see `ShardIndex`.
    """

    count: int
    size: int
    digest: str
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, index: ShardIndex) -> Self:
        return cls(count=len(index), size=index.size, digest=index.digest, problems=index.problems)

    @property
    def damage(self) -> str:
        """See `ShardIndex.damage`."""
        return damage_of(self.problems, self.count)


def cached_head(path: AnyPath, stamp: Stamp, cache: Path) -> IndexHead | None:
    """The head of the index of `path` in folder `cache`, where it is there and fits `stamp`."""
    try:
        with _cache_file(path, cache).open("rb", buffering=0) as file:  # the head alone
            fields = _fields(file.read(_HEAD.size), stamp)
            if fields is None or os.fstat(file.fileno()).st_size != fields.end:
                return None
            problems = file.read(fields.text) if fields.text else b""
    except OSError:
        return None
    if zlib.crc32(problems) != fields.text_crc:
        return None
    return IndexHead(
        count=fields.count, size=stamp.size, digest=fields.digest, problems=_lines(problems)
    )


def cached_index(path: AnyPath, stamp: Stamp, cache: Path) -> ShardIndex | None:
    """The index of `path` in folder `cache`, where it is there, whole, and fits `stamp`."""
    try:
        data = _cache_file(path, cache).read_bytes()
    except OSError:
        return None
    fields = _fields(data[: _HEAD.size], stamp)
    if fields is None or len(data) != fields.end:
        return None
    start = _HEAD.size + fields.text
    problems, body = data[_HEAD.size : start], memoryview(data)[start:]
    if zlib.crc32(body) != fields.crc or zlib.crc32(problems) != fields.text_crc:
        return None
    rows = fields.count * TABLE.itemsize
    return ShardIndex(
        stamp=stamp,
        names=np.frombuffer(body[rows:], dtype=f"S{fields.width}"),
        table=np.frombuffer(body[:rows], dtype=TABLE),
        problems=_lines(problems),
    )


def _lines(problems: bytes) -> tuple[str, ...]:
    text = problems.decode("utf-8", "surrogateescape")
    return tuple(text.split("\n")) if text else ()


def keep_index(path: AnyPath, index: ShardIndex, cache: Path) -> None:
    """Keep `index` of shard `path` in folder `cache`, atomically."""
    problems = "\n".join(index.problems).encode("utf-8", "surrogateescape")
    body = index.table.tobytes() + index.names.tobytes()
    head = _HEAD.pack(
        _MAGIC,
        _VERSION,
        index.names.itemsize,
        len(index),
        index.size,
        _digest(index.stamp),
        bytes.fromhex(index.digest),
        len(problems),
        zlib.crc32(body),
        zlib.crc32(problems),
    )
    write_atomic(_cache_file(path, cache), head + problems + body)


@dataclass(frozen=True)
class _Fields:
    count: int
    width: int
    digest: str
    end: int
    text: int
    crc: int
    text_crc: int


def _fields(data: bytes, stamp: Stamp) -> _Fields | None:
    """The fields of a head, where it is one and belongs to `stamp`."""
    if len(data) < _HEAD.size:
        return None
    magic, form, width, count, size, version, digest, text, *crcs = _HEAD.unpack(data)
    if (magic, form, size, version) != (_MAGIC, _VERSION, stamp.size, _digest(stamp)):
        return None
    end = _HEAD.size + count * (TABLE.itemsize + width) + text
    return _Fields(count, width, digest.hex(), end, text, *crcs)


def _digest(stamp: Stamp) -> bytes:
    return hashlib.sha256(stamp.version.encode()).digest()


def _cache_file(path: AnyPath, cache: Path) -> Path:
    """Named by the shard's whole path or URL."""
    name = os.fsencode(path.resolve()) if isinstance(path, Path) else str(path).encode()
    return cache / f"{hashlib.sha256(name).hexdigest()[:32]}.index"
