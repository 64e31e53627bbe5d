"""The ledger of one shard's labels: a compact binary table, read without parsing.

Layout (little-endian): a header of 96 bytes, one row of 61 bytes per sample in the order of the
image shard, the keys as NUL-padded UTF-8 of one width, then the messages of failed samples as
UTF-8 lines. The header holds the size and sha256 of the label tar, and a CRC of the whole ledger,
and each row the CRC of its sample's bytes, so that truncation and damage of either file are noticed
where they are read; and the size of the image shard, which tells with the keys whose labels these
are. Versions 1 and 2 are read too: their rows have no CRC (53 bytes), and the ledger's own leaves
out the header; in version 1 they lack the confidence's place as well (37 bytes), and there is no
size of the image shard.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from cliptex.files import AnyPath, read_bytes

MAGIC = b"CLIPTEXL"
VERSION = 3
# magic, version, rows, size of the tar, size of the messages, sha256 of the tar, width of a key,
# CRC-32 of all but itself, size of the image shard (0: unknown)
_HEADER = struct.Struct("<8sIIQQ32sIIQ16x")

ROW = np.dtype(
    [
        ("status", "<u1"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("meta_offset", "<u8"),
        ("meta_size", "<u8"),
        ("message", "<u4"),
        ("confidence_offset", "<u8"),
        ("confidence_size", "<u8"),
        ("crc", "<u4"),
        ("confidence_crc", "<u4"),
    ]
)
ROWS_BY_VERSION = {1: np.dtype(ROW.descr[:6]), 2: np.dtype(ROW.descr[:8]), VERSION: ROW}
FIRST_CHECKED = 3
_CRC_AT = 68  # its place in the header, which holds 0 there while it is computed
NO_MESSAGE = 0xFFFFFFFF
MAX_MESSAGE = 300  # characters kept of an error
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object in an error: differs in each run


class Status(IntEnum):
    """What became of one sample."""

    OK = 0
    DECODE_ERROR = 1
    """The image cannot be decoded; the message begins with the reason's class."""
    EXPERT_ERROR = 2
    """The expert raised an exception on this image alone."""
    BAD_LABEL = 3
    """The expert's output is not in its kind's form."""
    NO_VALID_PIXEL = 4
    """Not finite, or without a direction, everywhere."""
    NO_LABEL = 5
    """The source of labels has none for this image."""

    @property
    def label(self) -> str:
        """The name in reports: `decode-error` and so on."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One sample's line; offsets and sizes are bytes of the label tar, 0 where nothing is kept."""

    key: str
    status: Status
    offset: int = 0
    size: int = 0
    meta_offset: int = 0
    meta_size: int = 0
    confidence_offset: int = 0
    confidence_size: int = 0
    crc: int = 0
    """CRC-32 of the label's PNG and then its JSON."""
    confidence_crc: int = 0
    message: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ledger:
    """An opened ledger: `keys` (n,) fixed-width bytes and `rows` (n,) of `ROW`, same order.

    Sizes of 0 in a row mean that there is no such member.
    """

    path: AnyPath
    keys: np.ndarray
    rows: np.ndarray
    messages: tuple[str, ...]
    tar_size: int
    tar_sha256: str
    image_size: int
    """Bytes of the image shard; 0 where the writer did not say."""
    checked: bool = True
    """Whether rows hold checksums; False in ledgers of versions 1 and 2."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _order(self) -> np.ndarray | None:
        """Rows by key; None where the keys are in order already, as they mostly are."""
        if (self.keys[:-1] < self.keys[1:]).all():
            return None
        return np.argsort(self.keys, kind="stable")  # (n,) int64, which searchsorted needs

    def names(self) -> tuple[str, ...]:
        """All keys as text, in the order of the image shard."""
        return tuple(key.decode("utf-8", "surrogateescape") for key in self.keys)

    def find(self, key: str) -> int | None:
        """Row of a key, by binary search; None where the ledger does not know it."""
        data = encode_key(key)
        if len(data) > self.keys.itemsize or not len(self.keys):
            return None
        # of the keys' own width, else numpy would convert all of them
        wanted = np.array(data, self.keys.dtype)
        place = int(self.keys.searchsorted(wanted, sorter=self._order))
        if place == len(self.keys):
            return None
        row = place if self._order is None else int(self._order[place])
        return row if self.keys[row] == data else None

    def has_label(self, key: str) -> bool:
        """Whether a key's label is stored."""
        row = self.find(key)
        return row is not None and int(self.rows["status"][row]) == Status.OK

    def ok_keys(self) -> np.ndarray:
        """Keys that have a label; fixed-width bytes."""
        return self.keys[self.rows["status"] == Status.OK]

    def counts(self) -> Counter[Status]:
        """Number of samples by status."""
        found, numbers = np.unique(self.rows["status"], return_counts=True)
        pairs = zip(found, numbers, strict=True)
        return Counter({Status(int(status)): int(n) for status, n in pairs})

    def message(self, row: int) -> str:
        """The error of a failed sample, or an empty string."""
        index = int(self.rows["message"][row])
        return "" if index == NO_MESSAGE else self.messages[index]


def encode_key(key: str) -> bytes:
    """A key as the ledger keeps it."""
    return key.encode("utf-8", "surrogateescape")


def checksum(*parts: bytes | None) -> int:
    """CRC-32 of a sample's members one after another; 0 where there is none."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part or b"", crc)
    return crc


def ledger_path(tar: AnyPath) -> AnyPath:
    """`SHARD.ledger` beside `SHARD.tar`."""
    return tar.with_suffix(".ledger")


def ledger_bytes(
    entries: Sequence[Entry], tar_size: int, tar_sha256: str, image_size: int = 0
) -> bytes:
    """A whole ledger, whose writing is the last step of a shard's commit."""
    messages: dict[str, int] = {}
    lines = [_line(entry, messages) for entry in entries]
    rows = np.array(lines, dtype=ROW)
    encoded = [encode_key(entry.key) for entry in entries]
    width = max(map(len, encoded), default=1) or 1
    keys = np.array(encoded, dtype=f"S{width}").tobytes()
    text = "\n".join(messages).encode("utf-8", "surrogateescape")
    body = rows.tobytes() + keys + text
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        len(entries),
        tar_size,
        len(text),
        bytes.fromhex(tar_sha256),
        width,
        0,
        image_size,
    )
    crc = zlib.crc32(body, zlib.crc32(header))
    return header[:_CRC_AT] + struct.pack("<I", crc) + header[_CRC_AT + 4 :] + body


def _line(entry: Entry, messages: dict[str, int]) -> tuple[int, ...]:
    """An entry as a row of `ROW`; its message joins `messages`, each text once."""
    text = _ADDRESS.sub("", " ".join(entry.message.split()))[:MAX_MESSAGE]
    index = messages.setdefault(text, len(messages)) if text else NO_MESSAGE
    places = (entry.offset, entry.size, entry.meta_offset, entry.meta_size)
    confidence = (entry.confidence_offset, entry.confidence_size)
    return (int(entry.status), *places, index, *confidence, entry.crc, entry.confidence_crc)


def read_ledger(path: AnyPath) -> Ledger:
    """Open a ledger; ValueError naming the file and the remedy where it is damaged."""
    data = read_bytes(path)
    if len(data) < _HEADER.size or data[:8] != MAGIC:
        raise _damaged(path, "it is not a ledger or its beginning is missing")
    header = _HEADER.unpack_from(data)
    _, version, count, tar_size, text_size, digest, width, crc, image_size = header
    if version not in ROWS_BY_VERSION:
        raise ValueError(
            f"{path} is of version {version}; this program reads 1 to {VERSION}: use a newer one"
        )
    row_type = ROWS_BY_VERSION[version]
    body = memoryview(data)[_HEADER.size :]
    keys_start = count * row_type.itemsize
    text_start = keys_start + count * width
    start = 0
    if version >= FIRST_CHECKED:
        start = zlib.crc32(data[:_CRC_AT] + bytes(4) + data[_CRC_AT + 4 : _HEADER.size])
    if len(body) != text_start + text_size or zlib.crc32(body, start) != crc:
        raise _damaged(path, "its bytes are truncated or changed")
    text = bytes(body[text_start:]).decode("utf-8", "surrogateescape")
    return Ledger(
        path=path,
        keys=np.frombuffer(body[keys_start:text_start], dtype=f"S{width}"),
        rows=_as_current(np.frombuffer(body[:keys_start], dtype=row_type)),
        messages=tuple(text.split("\n")),
        tar_size=tar_size,
        tar_sha256=digest.hex(),
        image_size=image_size,
        checked=version >= FIRST_CHECKED,
    )


def _as_current(rows: np.ndarray) -> np.ndarray:
    """Rows of any version as `ROW`; columns that the version lacks are 0."""
    if rows.dtype == ROW:
        return rows
    current = np.zeros(len(rows), ROW)
    for name in rows.dtype.names or ():
        current[name] = rows[name]
    return current


def _damaged(path: AnyPath, why: str) -> ValueError:
    return ValueError(
        f"{path} is damaged: {why}. Remove it and run `cliptex label run` again: "
        "only this shard is labelled anew"
    )
