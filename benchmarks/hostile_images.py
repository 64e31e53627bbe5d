"""Hostile images; what is in them is told by Pillow's `Image.open` and `exif_transpose`."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from cliptex.datasets.protocol import read_image
from hostile_cases import Case, damage, short, write

SUFFIX = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
SUFFIX |= {"PPM": "ppm", "AVIF": "avif", "DIB": "dib"}
FOREIGN = ("TGA", "ICO", "PCX", "SGI", "JPEG2000", "PDF", "EPS", "IM", "MSP")
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta>'
)
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "P+t", "L+t", "RGB+t"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("P", "L", "P+t"),
    "BMP": ("RGB", "L", "P", "1", "RGBA"),
    "TIFF": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK", "YCbCr", "LAB", "F", "I"),
    "PPM": ("RGB", "L", "1", "I"),
    "AVIF": ("RGB", "RGBA", "L"),
    "DIB": ("RGB", "L"),
}


def picture(rng: random.Random, mode: str) -> Image.Image:
    height, width = rng.randrange(1, 40), rng.randrange(1, 40)
    noise = np.random.default_rng(rng.randrange(2**32))
    coarse = noise.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    base = Image.fromarray(coarse, "RGBA" if mode in ("RGBA", "LA") else None)
    base = base.resize((width, height), Image.Resampling.BILINEAR)
    if mode in ("I;16", "I", "F"):
        values = np.asarray(base.convert("L")).astype(np.uint32) * 257
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(values.astype(kind))
    opaque = base if mode in ("RGBA", "LA") else base.convert("RGB")
    return (
        opaque.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else opaque.convert(mode)
    )


def built(rng: random.Random, format: str) -> tuple[bytes, str]:
    """A sound file of `format`, odd in its mode, its metadata or its layout."""
    told = rng.choice(MODES[format])
    mode, transparent = told.removesuffix("+t"), told.endswith("+t")
    image, more = picture(rng, mode), {}
    if transparent:
        value = image.getpixel((0, 0))
        more["transparency"] = value if isinstance(value, tuple) else int(value or 0)
    how = [f"{format} {told} {image.size}"]
    turn = rng.randrange(10)
    if turn and format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        exif = Image.Exif()
        exif[0x0112] = turn  # 9 is no orientation
        if format == "PNG" and rng.random() < 0.5:
            info = PngImagePlugin.PngInfo()
            if rng.random() < 0.5:
                info.add_itxt("XML:com.adobe.xmp", XMP.format(turn))
                how.append(f"XMP orientation {turn}")
            else:
                raw = exif.tobytes()
                text = f"\nexif\n{len(raw):8d}\n{raw.hex()}\n"
                info.add_text("Raw profile type exif", text, zip=rng.random() < 0.5)
                how.append(f"orientation {turn} in a raw EXIF profile")
            more["pnginfo"] = info
        elif format in ("JPEG", "WEBP", "TIFF") and rng.random() < 0.25:
            more["xmp"] = XMP.format(turn).encode()
            how.append(f"XMP orientation {turn}")
        else:
            more["exif"] = exif
            how.append(f"EXIF orientation {turn}")
    if format == "JPEG" and rng.random() < 0.5:
        more |= {"progressive": rng.random() < 0.5, "quality": rng.choice((5, 100))}
    plain = mode not in ("I;16", "I", "F") and not transparent
    if format in ("GIF", "WEBP", "TIFF", "PNG") and plain and rng.random() < 0.3:
        others = [picture(rng, mode).resize(image.size) for _ in range(2)]
        more |= {"save_all": True, "append_images": others}
        how.append("3 frames")
    if format == "TIFF" and mode == "RGB" and rng.random() < 0.5:
        more["compression"] = rng.choice(("tiff_lzw", "tiff_deflate", "jpeg", "packbits"))
        how.append(more["compression"])
    if format == "GIF":
        more["interlace"] = rng.randrange(2)
    out = io.BytesIO()
    image.save(out, format, **more)
    return out.getvalue(), ", ".join(how)


def interlaced(rng: random.Random) -> tuple[bytes, str]:
    """A PNG by Adam7, or of few bits, which Pillow does not write."""
    bits, method = rng.choice((1, 2, 4, 8, 16)), rng.randrange(2)
    width = height = rng.randrange(1, 9)
    pixel = rng.randbytes(2)
    lines = b""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    passes += ((0, 1, 1, 2),)
    for left, top, dx, dy in passes if method else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // dx), -(-(height - top) // dy)
        if columns > 0 and rows > 0:
            row = (pixel * columns)[: -(-columns * bits // 8)]
            lines += (b"\0" + row) * rows
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, method)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return data, f"PNG of {bits} bits, {width}x{height}, {'interlaced' if method else 'plain'}"


def huge(rng: random.Random) -> tuple[bytes, str]:
    """A header that promises far more pixels than there are, or none."""
    width, height = rng.choice(
        ((0, 0), (0, 5), (2**31 - 1, 2**31 - 1), (60_000, 60_000), (8, 2**30))
    )
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    data = out.getvalue()
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    data = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    return data, f"a PNG whose header says {width}x{height}"


def foreign(rng: random.Random) -> tuple[bytes, str]:
    format, out = rng.choice(FOREIGN), io.BytesIO()
    Image.new("1" if format == "MSP" else "RGB", (16, 16)).save(out, format)
    return out.getvalue(), format


def truth(data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 by Pillow alone; None where it does not read the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return _to_rgb(_upright(image), image)
    except Exception:  # Pillow's plugins raise nearly anything
        return None


def _upright(image: Image.Image) -> Image.Image:
    """As it is where the orientation is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_rgb(image: Image.Image, opened: Image.Image) -> np.ndarray | None:
    if image.mode.startswith("I;16") or (image.mode == "I" and opened.format == "PPM"):
        values = np.asarray(image).astype(np.float64) / 257
        return np.repeat(np.rint(values).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        return None  # of no stated range
    if "A" in image.mode or image.mode in ("RGBa", "La") or "transparency" in opened.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, over).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def case(rng: random.Random, number: int, folder: Path) -> Case:
    way, sound = number % 20, None
    if way < 12:
        format = sorted(MODES)[number % len(MODES)]
        data, how = built(rng, format)
        suffix = SUFFIX[format]
        if way >= 6:
            sound = truth(data)
            data, done = damage(rng, data)
            how += f", {done}"
    else:
        makers = (interlaced, huge, foreign)
        data, how = makers[way % 3](rng)
        suffix = "png"
    if rng.random() < 0.1:
        suffix = rng.choice(("jpg", "png"))  # whatever the name says
    path = write(folder / f"image.{suffix}", data)
    expected = truth(data)

    def judge(got: np.ndarray, said: str) -> str:
        if expected is None and sound is not None and np.array_equal(got, sound):
            return ""  # the damage was beside the picture
        if expected is None:
            return f"{got.shape} of a file that Pillow does not read"
        if got.shape != expected.shape:
            return f"{got.shape}, Pillow has {expected.shape}"
        error = int(np.abs(got.astype(int) - expected.astype(int)).max()) if got.size else 0
        if said.strip():
            return f"prints {short(said.strip())!r}"
        return f"differs from Pillow by up to {error}" if error > 1 else ""

    return Case(how, lambda: read_image(path), judge, (path.name,), expected is not None)
