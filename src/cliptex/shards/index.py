"""Where each sample lies inside a tar: found once from the headers, kept as compact arrays.

Indices are kept in a local folder, one file per shard. Opening reads its head, and its body is
read when it is needed. Little-endian: a head of 160 bytes, the problems as UTF-8 lines, the table,
the keys as NUL-padded UTF-8 of one width.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Self, cast

import numpy as np

from cliptex.files import AnyPath, Stamp, ask, stamp, write_atomic
from cliptex.shards.images import IMAGE_EXTENSIONS
from cliptex.shards.problems import counted

# Members with captions, one a line; where a sample has several, the first of this order is read.
TEXT_EXTENSIONS = ("txt", "text", "caption")
JSON_EXTENSION = "json"  # whose caption is read where there is no text, or where a field is named

MISSING = -1  # offset of a member that is not there
MAX_MEMBER = 2**32 - 1  # bytes

TABLE = np.dtype(
    [
        ("image_offset", "<i8"),
        ("image_size", "<u4"),
        ("text_offset", "<i8"),
        ("text_size", "<u4"),
        ("json_offset", "<i8"),
        ("json_size", "<u4"),
        ("extension", "u1"),  # into IMAGE_EXTENSIONS
        ("text_extension", "u1"),  # into TEXT_EXTENSIONS
    ]
)

_READ_AHEAD = 4 * 2**20  # bytes of a remote shard fetched at once while its headers are read
_CUT = "truncated: "  # begins the problem of a shard that lacks a part
_NONE = "no sample: "  # begins the problem of a shard whose members form none
_MEMBER = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<extension>[^/]*)")
_OCTAL = re.compile(rb"[0-7]+")
_IMAGE_RANKS = {extension: rank for rank, extension in enumerate(IMAGE_EXTENSIONS)}
_ROLES = frozenset((*IMAGE_EXTENSIONS, *TEXT_EXTENSIONS, JSON_EXTENSION))
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardIndex:
    """The samples of one shard, in the order of the tar.

    Attributes:
        stamp: the shard's version when it was scanned.
        names: (N,) bytes, the keys in UTF-8.
        table: (N,) of `TABLE`, byte offsets and sizes within the shard.
        problems: one line each, "KIND: DETAIL" (see cliptex.shards.problems).
    """

    stamp: Stamp
    names: np.ndarray
    table: np.ndarray
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size(self) -> int:
        """Bytes of the shard."""
        return self.stamp.size

    @property
    def damage(self) -> str:
        """See `damage_of`."""
        return damage_of(self.problems, len(self))

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(name.decode() for name in self.names.tolist())

    @property
    def extensions(self) -> tuple[str, ...]:
        """Each sample's image extension, lower case, without the dot."""
        return tuple(IMAGE_EXTENSIONS[i] for i in self.table["extension"].tolist())

    def key(self, row: int) -> str:
        return self.names[row].decode()

    def row(self, key: str) -> int:
        """The row of `key`, by binary search; KeyError where the shard has no such sample."""
        data = key.encode()
        if len(data) <= self.names.itemsize and len(self.names):
            # of the names' own width, else numpy would convert all of them
            wanted = np.array(data, self.names.dtype)
            place = int(self.names.searchsorted(wanted, sorter=self._order))
            if place < len(self.names):
                row = place if self._order is None else int(self._order[place])
                if self.names[row] == data:
                    return row
        raise KeyError(key)

    @cached_property
    def _order(self) -> np.ndarray | None:
        """Rows by key; None where the keys are in order already, as they mostly are."""
        if (self.names[:-1] < self.names[1:]).all():
            return None
        return np.argsort(self.names, kind="stable")  # (N,) int64, which searchsorted needs

    @cached_property
    def digest(self) -> str:
        """sha256 of the keys in order, part of the dataset's identity."""
        return hashlib.sha256(b"\n".join(self.names.tolist())).hexdigest()


def damage_of(problems: Sequence[str], samples: int) -> str:
    """What shows that a shard of so many samples is of no use as it is; "" where it is whole.

    A part is missing or broken, or it holds images or texts and yet no sample. A tar without an
    end-of-archive mark is whole as long as it has samples: some programs leave the mark out.
    """
    fatal = [_CUT, _NONE] if samples else [_CUT, "unfinished: ", _NONE]
    found = (p.removeprefix(kind) for kind in fatal for p in problems if p.startswith(kind))
    return next(found, "")


Place = tuple[int, int]  # offset and size of a member's data


@dataclass
class _Scan:
    """What was met so far: the members of each key by extension, and what belongs to none."""

    samples: dict[str, dict[str, Place]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def index_shard(path: AnyPath) -> ShardIndex:
    """Scan the headers of a plain tar; no member's content is looked at.

    A remote shard is read in stretches of 4 MiB, one at a time. What is damaged is reported in
    `problems` and what is whole is kept. Members of a key need not be adjacent. Of two members
    with one name the first is kept; of several images or texts of a key, the first in the order
    of `IMAGE_EXTENSIONS` and `TEXT_EXTENSIONS`.

    Raises:
        ValueError: the file is compressed, so that nothing in it can be reached at random.
        OSError: the file cannot be read.
    """
    return ask(path, lambda: _scanned(path))


def _scanned(path: AnyPath) -> ShardIndex:
    version = stamp(path)
    scan = _Scan()
    with _open(path) as file:
        _refuse_compressed(path, file.read(8))
        file.seek(0)
        for member in _members(file, version.size, scan.problems):
            _place(member, scan)
    return _build(scan, version)


def _open(path: AnyPath) -> IO[bytes]:
    if isinstance(path, Path):
        return path.open("rb")
    options = {"block_size": _READ_AHEAD, "cache_type": "readahead"}
    return cast(IO[bytes], path.fs.open(path.path, "rb", **options))


def split_name(name: str) -> tuple[str, str] | None:
    """(key, lower-case extension) of a member's name as WebDataset splits it: at the first dot
    of the base name, "./a" being "a". None for hidden files and names without a dot."""
    match = _MEMBER.fullmatch(posixpath.normpath(name) if "./" in name or "//" in name else name)
    return (match["key"], match["extension"].lower()) if match else None


def _refuse_compressed(path: AnyPath, start: bytes) -> None:
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(
                f"{path}: compressed with {name}; samples are read at random, which a compressed "
                f"tar does not allow. Decompress it to a plain .tar first."
            )


class _QuickInfo(tarfile.TarInfo):
    """tarfile's member, three times as quick at reading the header of an ordinary file.

    Only the name, size and type are taken; owners and times do not matter here. Any other
    header (a link, a long name, base-256 numbers, a wrong checksum) is left to tarfile.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        size, checksum = buf[124:136].rstrip(b" \0"), buf[148:156].rstrip(b" \0")
        name = bytes(buf[:100]).split(b"\0", 1)[0]
        ordinary = (
            len(buf) == tarfile.BLOCKSIZE
            and buf[156:157] in (tarfile.REGTYPE, tarfile.AREGTYPE)
            and buf[257:262] == b"ustar"
            and buf[345] == 0  # the name has no prefix
            and not name.endswith(b"/")
            and _OCTAL.fullmatch(size)
            and _OCTAL.fullmatch(checksum)
        )
        if not ordinary or int(checksum, 8) != sum(buf) - sum(buf[148:156]) + 8 * ord(" "):
            return super().frombuf(buf, encoding, errors)
        member = cls(name.decode(encoding, errors))
        member.size = int(size, 8)
        return member


def _members(file: IO[bytes], size: int, problems: list[str]) -> Iterator[tarfile.TarInfo]:
    """The whole members of an open tar; damage ends the iteration and is reported."""
    end = 0
    try:
        with tarfile.TarFile(fileobj=file, mode="r", tarinfo=_QuickInfo) as tar:
            while (member := tar.next()) is not None:
                stored = member.size if _has_data(member) else 0
                if stored < 0 or member.offset_data + stored > size:
                    problems.append(f"{_CUT}{member.name!r} is cut off at byte {size}")
                    return
                end = member.offset_data + -(-stored // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                yield member
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the latter: absurd numbers
        problems.append(f"{_CUT}damaged after byte {end} of {size} ({error})")
        return
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        problems.append(f"unfinished: ends at byte {size} without an end-of-archive mark")
    elif block.strip(b"\0"):
        problems.append(f"{_CUT}not a tar header at byte {end} of {size}")


def _has_data(member: tarfile.TarInfo) -> bool:
    return member.isreg() or member.type not in tarfile.SUPPORTED_TYPES


def _place(member: tarfile.TarInfo, scan: _Scan) -> None:
    """Enter one member into the scan, or say why not."""
    name = member.name
    if member.isdir():
        return
    parts = name.removeprefix("./").split("/")
    if name.startswith("/") or ".." in parts or "\\" in name:
        scan.problems.append(f"refused: {name!r} points outside of the shard")
        return
    if not member.isreg() or member.issparse():
        scan.problems.append(f"refused: {name!r} is a link or a special file")
        return
    split = split_name(name)
    if split is None or split[1] not in _ROLES:
        if name.rpartition(".")[2].lower() in (*IMAGE_EXTENSIONS, *TEXT_EXTENSIONS):
            scan.ignored.append(name)
        return
    key, extension = split
    try:
        key.encode()
    except UnicodeEncodeError:
        scan.problems.append(f"refused: {name!r} is not UTF-8")
        return
    if member.size > MAX_MEMBER:
        scan.problems.append(f"refused: {name!r} has {member.size} bytes, more than {MAX_MEMBER}")
        return
    found = scan.samples.setdefault(key, {})
    if extension in found:
        scan.problems.append(f"duplicate key: {name!r}; the first is kept")
    else:
        found[extension] = (member.offset_data, member.size)


def _build(scan: _Scan, version: Stamp) -> ShardIndex:
    rows: list[tuple[int, ...]] = []
    names: list[bytes] = []
    several: list[str] = []
    for key, found in scan.samples.items():
        images = [extension for extension in found if extension in _IMAGE_RANKS]
        texts = [extension for extension in found if extension in TEXT_EXTENSIONS]
        if not images:
            if texts:
                scan.problems.append(f"missing image: {key!r} has a caption only")
            continue
        if len(images) > 1:
            several.append(f"{key!r} has {' and '.join(images)}")
        image = min(images, key=_IMAGE_RANKS.__getitem__)
        text = min(texts, key=TEXT_EXTENSIONS.index, default="txt")
        places = (found.get(e, (MISSING, 0)) for e in (image, text, JSON_EXTENSION))
        names.append(key.encode())
        ranks = (_IMAGE_RANKS[image], TEXT_EXTENSIONS.index(text))
        rows.append((*(number for place in places for number in place), *ranks))
    ignored = [repr(name) for name in scan.ignored]
    for kind, examples in (("ignored", ignored), ("several images", several)):
        if examples and rows:
            scan.problems.append(counted(kind, len(examples), examples[0]))
    if not rows:
        _say_why(scan)
    return ShardIndex(
        stamp=version,
        names=np.array(names, dtype="S") if names else np.empty(0, dtype="S1"),
        table=np.array(rows, dtype=TABLE),
        problems=tuple(scan.problems),
    )


def _say_why(scan: _Scan) -> None:
    """Enter why a shard has no sample."""
    lonely = [key for key, found in scan.samples.items() if found.keys() & set(TEXT_EXTENSIONS)]
    if scan.ignored:
        scan.problems.append(
            f"{_NONE}{len(scan.ignored)} members such as {scan.ignored[0]!r} end in an image's or "
            "a text's suffix, yet none forms a sample: a key ends at the first dot of the base "
            "name; rename them to KEY.jpg, KEY.txt with no dot in KEY"
        )
    elif lonely:
        scan.problems.append(
            f"{_NONE}{len(lonely)} texts such as that of {lonely[0]!r}, and no image of their keys"
        )
    elif not scan.problems:
        scan.problems.append("empty: it holds no sample")


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
        _version_digest(index.stamp),
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
    if (magic, form, size, version) != (_MAGIC, _VERSION, stamp.size, _version_digest(stamp)):
        return None
    end = _HEAD.size + count * (TABLE.itemsize + width) + text
    return _Fields(count, width, digest.hex(), end, text, *crcs)


def _version_digest(stamp: Stamp) -> bytes:
    return hashlib.sha256(stamp.version.encode()).digest()


def _cache_file(path: AnyPath, cache: Path) -> Path:
    """Named by the shard's whole path or URL."""
    name = os.fsencode(path.resolve()) if isinstance(path, Path) else str(path).encode()
    return cache / f"{hashlib.sha256(name).hexdigest()[:32]}.index"
