"""Bytes to pixels: the one place where image files are opened, judged and turned upright."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
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

_EXIF = b"Exif\x00\x00"
_ORIENTATION_TAG = 0x0112
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

    EXIF orientation is applied here and nowhere else. Transparency is composed on white, 16-bit
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
    data, exif = _split_jpeg_exif(data) if extension == "jpg" else (data, b"")
    try:
        with _OPENERS[extension](io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError("too-large", f"{width}x{height}, more than {max_pixels} pixels")
            if min_side is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
                image.draft(None, (max(min_side, 1), max(min_side, 1)))
            image.load()
            pixels = _to_rgb(image)
            exif = exif or image.info.get("exif", b"")
            turn = _TURNS.get(_orientation(exif)) if upright else None
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on bad bytes
        raise ImageError(_reason(error), f"{type(error).__name__}: {error}") from error
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG that is stored upright, from its header; None for anything else.

    Of such an image `decode_image` with a `min_side` keeps the top left corner where it is.
    """
    if image_extension(data) != "jpg":
        return None
    data, exif = _split_jpeg_exif(data)
    if _orientation(exif) != 1:
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
    short = isinstance(error, (EOFError, struct.error, IndexError)) or "truncated" in text
    short = short or "not enough image data" in text  # of a PPM
    return "truncated" if short else "broken"


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


def _split_jpeg_exif(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG with its EXIF block hidden from Pillow, and the block.

    Pillow reads the block when it opens a JPEG and warns where it is damaged; decoding in
    threads leaves no safe way to silence a warning.
    """
    start = 2
    while data[start : start + 1] == b"\xff" and start + 4 <= len(data):
        marker, size = struct.unpack_from(">xBH", data, start)
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):  # past the APPn and comment segments
            break
        body = start + 4
        if marker == 0xE1 and data.startswith(_EXIF, body):
            exif = data[body : start + 2 + size]
            return data[:body] + bytes(len(_EXIF)) + data[body + len(_EXIF) :], exif
        start += 2 + size
    return data, b""


def _orientation(exif: bytes) -> int:
    """The orientation (1 to 8) in an EXIF block; 1 where it is absent or damaged."""
    body = exif.removeprefix(_EXIF)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(body[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", body, 4)
        (count,) = struct.unpack_from(order + "H", body, start)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", body, start + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG and kind == 3:
                return value
    except struct.error:
        pass
    return 1
