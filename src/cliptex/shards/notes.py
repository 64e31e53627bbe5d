"""What an image file holds beside its pixels: how to turn it, and the file without the rest.

Pillow reads EXIF, XMP, texts and animations when it opens a file, warns where they are damaged and
takes some images for broken because of them. Images are decoded in threads, where no warning can be
silenced safely, so Pillow gets a file without them, and orientation is read here, as
`PIL.ImageOps.exif_transpose` reads it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import TiffTags

_EXIF = b"Exif\x00\x00"
_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_IN_PNG = b"XML:com.adobe.xmp"
_PROFILE_IN_PNG = b"Raw profile type exif"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_EXIF_IN_AVIF = re.compile(rb"(infe[\2\3]...(?:..|....)..)Exif", re.DOTALL)  # ISO 14496-12, infe
_ORIENTATION, _XMP = 274, 700  # tags of TIFF
_MAX_TEXT = 2**20  # bytes of a PNG's compressed text, as in Pillow

# A TIFF's tags that say where its pixels are and what they mean (TIFF 6.0).
_PIXEL_TAGS = frozenset(
    (*range(256, 260), 262, 266, 273, *range(277, 280), 284, 292, 293, 317, *range(320, 326))
    + (332, 338, 339, 347, *range(512, 522), *range(529, 533))
)
_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_INTEGERS = {3: "H", 4: "I", 8: "h", 9: "i", 16: "Q"}  # TIFF types with a number for orientation


@dataclass(frozen=True)
class Notes:
    """EXIF block and XMP packet of an image file, b"" where there is none; a TIFF's own tag."""

    exif: bytes = b""
    xmp: bytes = b""
    tag: int | None = None

    @property
    def orientation(self) -> int:
        """EXIF's orientation (tag 274), which precedes XMP's; 1 where neither is there.

        It may be no number from 1 to 8 where the file is odd; such an image is not turned.
        """
        told = self.tag if self.tag is not None else _exif_orientation(self.exif)
        if told is None and (match := _XMP_ORIENTATION.search(self.xmp)):
            told = int(match[1])
        return 1 if told is None else told


def without_notes(data: bytes, extension: str) -> tuple[bytes, Notes]:
    """An image file for Pillow to open, and what was hidden from it.

    Raises:
        ValueError, struct.error: a TIFF without a whole first page.
    """
    strip = {"jpg": _strip_jpeg, "png": _strip_png, "tif": _strip_tiff, "avif": _strip_avif}
    return strip[extension](data) if extension in strip else (data, Notes())


def _strip_jpeg(data: bytes) -> tuple[bytes, Notes]:
    """The segments APP1, APP2 and APP13 lose their names, so that Pillow passes them over."""
    exif = xmp = b""
    kept = None
    for marker, start, end in _segments(data):
        if marker not in (0xE1, 0xE2, 0xED):
            continue
        body = data[start:end]
        if marker == 0xE1 and body.startswith(_EXIF):  # Pillow joins several, too
            exif += body if not exif else body[len(_EXIF) :]
        elif marker == 0xE1 and body.startswith(_XMP_IN_JPEG):
            xmp = body.removeprefix(_XMP_IN_JPEG)
        kept = bytearray(data) if kept is None else kept
        name = min(len(_EXIF), len(body))
        kept[start : start + name] = bytes(name)
    return (data if kept is None else bytes(kept)), Notes(exif, xmp)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end of its content) of a JPEG's segments before its pixels."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0:
        while data[place + 1 : place + 2] == b"\xff":  # padding
            place += 1
        if place + 4 > len(data):
            return
        marker, size = struct.unpack_from(">xBH", data, place)
        if marker == 0xDA:  # pixels follow
            return
        if marker == 0 or marker == 1 or 0xD0 <= marker <= 0xD9:  # these have no content
            place += 2
            continue
        if place + 2 + size > len(data):
            return
        yield marker, place + 4, place + 2 + size
        place += 2 + max(size, 2)


def _strip_png(data: bytes) -> tuple[bytes, Notes]:
    """Only critical chunks and tRNS stay; of an animation that is the default image."""
    exif = profile = xmp = b""
    parts, place = [data[:8]], 8
    while True:
        size, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 12 + size
        if name == b"IEND" or end > len(data):  # a chunk that is cut off stays as it is
            break
        body = data[place + 8 : end - 4]
        if name == b"eXIf":
            exif = body
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, text = _png_text(name, body)
            profile = text if keyword == _PROFILE_IN_PNG else profile
            xmp = text if keyword == _XMP_IN_PNG else xmp
        elif name == b"tRNS" or not name[:1].islower():
            parts.append(data[place:end])
        place = end
    parts.append(data[place:])
    return b"".join(parts), Notes(exif or _raw_profile(profile), xmp)


def _png_text(name: bytes, body: bytes) -> tuple[bytes, bytes]:
    """(keyword, text) of one of a PNG's three chunks of text; b"" where the text is damaged."""
    keyword, _, text = body.partition(b"\0")
    if keyword not in (_PROFILE_IN_PNG, _XMP_IN_PNG):
        return keyword, b""
    packed = name == b"zTXt"
    if name == b"iTXt":
        packed, rest = text[:1] not in (b"", b"\0"), text[2:].split(b"\0", 2)
        text = text[1:2] + (rest[2] if len(rest) == 3 else b"")
    if packed:
        try:
            text = zlib.decompressobj().decompress(text[1:], _MAX_TEXT)
        except zlib.error:
            return keyword, b""
    elif name == b"iTXt":
        text = text[1:]
    return keyword, text


def _raw_profile(text: bytes) -> bytes:
    """The block in ImageMagick's "Raw profile type exif": hexadecimal from the fourth line on."""
    try:
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return b""


def _strip_avif(data: bytes) -> tuple[bytes, Notes]:
    """The Exif item gets another type; an AVIF is turned as its own properties say, which Pillow
    puts in `info`."""
    return _EXIF_IN_AVIF.sub(rb"\1xxxx", data), Notes()


def _strip_tiff(data: bytes) -> tuple[bytes, Notes]:
    """The directory of the first page with the tags of pixels alone; there is no other page."""
    order, big = _order(data), data[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    entries: dict[int, bytes] = {}
    tag_orientation, xmp, size = None, b"", 0
    for entry in _entries(data, start, order, big):
        if entry.tag in entries or not entry.count:
            continue
        if entry.tag == _ORIENTATION and tag_orientation is None:
            tag_orientation = entry.number(data, order)
        elif entry.tag == _XMP:
            xmp = data[entry.place : entry.place + entry.size]
        elif entry.tag in _PIXEL_TAGS:
            if entry.place + entry.size > len(data):
                raise ValueError(f"truncated: tag {entry.tag} lies behind the end of the file")
            size += entry.size
            entries[entry.tag] = entry.packed(data, order, big)
    if size > len(data):
        raise ValueError("its tags are larger than the file")
    head = struct.pack(order + ("Q" if big else "H"), len(entries))
    page = head + b"".join(entries.values()) + bytes(8 if big else 4)
    return data[:start] + page + data[start + len(page) :], Notes(b"", xmp, tag_orientation)


@dataclass(frozen=True)
class _Entry:
    """One entry of a TIFF directory; its value lies at `place`."""

    tag: int
    kind: int
    count: int
    place: int

    @property
    def size(self) -> int:
        return self.count * _UNITS[self.kind]

    def number(self, data: bytes, order: str) -> int | None:
        """Its first value, where that is an integer that lies within `data`."""
        if self.kind not in _INTEGERS or not self.count:
            return None
        try:
            return struct.unpack_from(order + _INTEGERS[self.kind], data, self.place)[0]
        except struct.error:
            return None

    def packed(self, data: bytes, order: str, big: bool) -> bytes:
        """The entry as it is written, with one value where the tag has only one."""
        single = self.kind in _INTEGERS and TiffTags.lookup(self.tag).length == 1
        count = 1 if single else self.count
        size, room = count * _UNITS[self.kind], 8 if big else 4
        value = data[self.place : self.place + size].ljust(room, b"\0")
        if size > room:
            value = struct.pack(order + ("Q" if big else "I"), self.place)
        return struct.pack(order + ("HHQ" if big else "HHI"), self.tag, self.kind, count) + value


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _entries(data: bytes, start: int, order: str, big: bool = False) -> Iterator[_Entry]:
    """The entries of the directory at `start`; struct.error where it is cut off."""
    head, form, room = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    (number,) = struct.unpack_from(order + head, data, start)
    place, step = start + struct.calcsize(order + head), struct.calcsize(order + form) + room
    for _ in range(number):
        tag, kind, count = struct.unpack_from(order + form, data, place)
        value = place + step - room
        if kind in _UNITS:
            if count * _UNITS[kind] > room:
                (value,) = struct.unpack_from(order + ("Q" if big else "I"), data, value)
            yield _Entry(tag, kind, count, value)
        place += step


def _exif_orientation(exif: bytes) -> int | None:
    """Tag 274 of the first directory of an EXIF block; None where it is absent or damaged."""
    body = exif.removeprefix(_EXIF).removeprefix(_EXIF)
    if body[:4] not in (b"II*\0", b"II\0*", b"MM*\0", b"MM\0*"):
        return None
    order = _order(body)
    try:
        (start,) = struct.unpack_from(order + "I", body, 4)
        total = 0
        for entry in _entries(body, start, order):
            if entry.size > 4:  # Pillow passes over what is too large, and stops at a cut
                total += entry.size
                if total > len(body):
                    continue
                if entry.place + entry.size > len(body):
                    return None
            if entry.tag == _ORIENTATION and entry.count:
                return entry.number(body, order)
    except struct.error:
        pass
    return None
