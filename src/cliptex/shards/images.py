"""Bytes to pixels: the one place where image files are opened, judged and turned upright."""

from __future__ import annotations

import io
import logging
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

from cliptex.shards.notes import Notes, without_notes

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
