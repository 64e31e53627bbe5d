"""Bytes to pixels: the one place where image files are opened, judged and turned upright.

Pillow reads EXIF, XMP, texts and animations when it opens a file, warns where they are damaged and
takes some images for broken because of them. Images are decoded in threads, where no warning can be
silenced safely, so Pillow gets a file without them, and orientation is read here, as
`PIL.ImageOps.exif_transpose` reads it.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    TiffTags,
    features,
)
from PIL import ImageFile as PilImageFile
from PIL import WebPImagePlugin as WebpImagePlugin

MAX_PIXELS = 50_000_000

# What an image file may be called, everywhere in this project. Where a sample has several images,
# the first extension of this order is taken.
IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "avif"),
    *("tif", "tiff", "bmp", "dib", "gif", "ppm", "pgm", "pbm", "pnm"),
)
IMAGE_SUFFIXES = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
FORMATS = "JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF or PPM"

# Opened through the plugins rather than Image.open: only these formats are ever tried (no
# Ghostscript), and the bomb check of Image.open, which warns, is replaced by ours.
_OPENERS: dict[str, Callable[[io.BytesIO], PilImageFile.ImageFile]] = {
    "jpg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebpImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "dib": BmpImagePlugin.DibImageFile,
    "tif": TiffImagePlugin.TiffImageFile,
    "ppm": PpmImagePlugin.PpmImageFile,
    "pgm": PpmImagePlugin.PpmImageFile,
    "pbm": PpmImagePlugin.PpmImageFile,
}
if features.check("avif"):  # Pillow 11.3 and later, where it was built with libavif
    from PIL import AvifImagePlugin

    _OPENERS["avif"] = AvifImagePlugin.AvifImageFile

# Pillow logs what it also raises; without a handler Python would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_MAGIC = {  # the first bytes of each format
    "jpg": re.compile(rb"\xff\xd8\xff"),
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "avif": re.compile(rb"....ftyp(avif|avis|(mif1|msf1)....(....)*?avi[fs])", re.DOTALL),
    "tif": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "gif": re.compile(rb"GIF8[79]a"),
    "bmp": re.compile(rb"BM"),
    "dib": re.compile(rb"([(48@l|]\0{3}.{8}|\x0c\0{3}.{4})\x01\0", re.DOTALL),  # a BMP without BM
    "pbm": re.compile(rb"P[14][\s#]"),
    "pgm": re.compile(rb"P[25][\s#]"),
    "ppm": re.compile(rb"P[36][\s#]"),
}

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # EXIF 2.3, tag 274, values 2 to 8
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


class ImageError(ValueError):
    """An image that cannot be used; `reason` is one short word for counting.

    Reasons: "empty" (no bytes), "unknown-format" (none of `FORMATS`),
    "too-large" (more pixels than allowed), "truncated", "broken" (anything else).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


def image_extension(data: bytes) -> str | None:
    """What the first bytes say the file is, one of `IMAGE_EXTENSIONS`; None for anything else."""
    start = data[:64]
    return next((name for name, magic in _MAGIC.items() if magic.match(start)), None)


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    min_side: int | None = None,
    upright: bool = True,
) -> np.ndarray:
    """Decode one image file to (H, W, 3) uint8 RGB, upright.

    The orientation that EXIF or XMP gives (as in `PIL.ImageOps.exif_transpose`) is applied here
    and nowhere else. Transparency is composed on white, 16-bit
    grey is scaled (not clipped) to 8, CMYK and palettes become RGB, of an animation the first
    frame is taken, of a TIFF the first page. Colour profiles are ignored. Pixels of 32 bits a
    channel, whose range no file states, are refused.

    Args:
        data: the file's bytes.
        max_pixels: more are refused from the header, before any is decoded.
        min_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (several times faster)
            as long as its short side stays at least this many pixels.
        upright: False leaves the pixels as they are stored, where masks or boxes belong to them.

    Raises:
        ImageError: the image is unusable; its `reason` says why.
    """
    if not data:
        raise ImageError("empty", "zero bytes")
    extension = image_extension(data)
    if extension is None:
        raise ImageError("unknown-format", f"starts with {data[:8]!r}, not a {FORMATS}")
    if extension not in _OPENERS:
        raise ImageError(
            "unknown-format", "this Pillow reads no AVIF; install Pillow 11.3 or later"
        )
    try:
        data, notes = without_notes(data, extension)
        with _OPENERS[extension](io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError("too-large", f"{width}x{height}, more than {max_pixels} pixels")
            if min_side is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
                image.draft(None, (max(min_side, 1), max(min_side, 1)))
            image.load()
            pixels = _to_rgb(image)
            if extension in ("webp", "avif"):
                notes = Notes(image.info.get("exif", b""), image.info.get("xmp", b""))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on bad bytes
        raise ImageError(_reason(error), f"{type(error).__name__}: {error}") from error
    turn = _TURNS.get(notes.orientation) if upright else None
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG that is stored upright, from its header; None for anything else.

    Of such an image `decode_image` with a `min_side` keeps the top left corner where it is.
    """
    if image_extension(data) != "jpg":
        return None
    data, notes = without_notes(data, "jpg")
    if notes.orientation in _TURNS:
        return None
    try:
        with _OPENERS["jpg"](io.BytesIO(data)) as image:
            return image.height, image.width
    except Exception:  # `decode_image` says what is wrong
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too-large"  # a GIF whose first frame is larger than its header says
    text = str(error).lower()
    short = isinstance(error, (EOFError, struct.error, IndexError))
    told = "truncated" in text or "not enough image data" in text  # the latter of a PPM
    return "truncated" if short or told else "broken"


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Any loaded PIL image to a fresh (H, W, 3) uint8 array."""
    wide = image.mode == "I" and image.format == "PPM"  # which scales up to 65535
    if image.mode in ("I", "F") and not wide:
        raise ImageError("broken", "32 bits a channel; convert it to 8 or 16 bits")
    if image.mode.startswith("I;16") or wide:
        grey = np.asarray(image).astype(np.uint32)
        grey = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return np.array(white)
    return np.array(image.convert("RGB"))


# What an image file holds beside its pixels: how to turn it, and the file without the rest.

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
