"""Orientation as Pillow applies it, and images whose notes are odd; its judge is ImageOps."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image, ImageOps, features
from PIL.PngImagePlugin import PngInfo

from cliptex.shards.images import ImageError, decode_image

Encode = Callable[..., bytes]

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
AVIF = [("AVIF", {"quality": 100})] if features.check("avif") else []
KINDS = [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), *AVIF]


def as_pillow_turns(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def with_text(keyword: str, text: str) -> Iterator[PngInfo]:
    for method in ("add_text", "add_itxt"):
        for packed in (False, True):
            info = PngInfo()
            getattr(info, method)(keyword, text, zip=packed)
            yield info


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_exif_and_xmp(encode: Encode, kind: str, options: dict, orientation: int) -> None:
    notes = [{"exif": exif(orientation)}]
    if kind in ("JPEG", "WEBP", "AVIF"):
        notes += [{"xmp": xmp(orientation)}, {"xmp": xmp(orientation), "exif": exif(1)}]
    if kind == "TIFF":
        notes += [{"tiffinfo": {700: xmp(orientation)}}]
        notes += [{"exif": exif(orientation), "big_tiff": True}]
        if 1 <= orientation <= 8:  # libtiff writes no other
            notes += [{"exif": exif(orientation), "compression": "tiff_lzw"}]
    for note in notes:
        data = encode(PIXELS, kind, **options, **note)
        np.testing.assert_array_equal(decode_image(data), as_pillow_turns(data))
        assert decode_image(data, upright=False).shape == PIXELS.shape


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_texts_of_a_png(encode: Encode, orientation: int) -> None:
    block = exif(orientation)
    raw = f"\nexif\n{len(block):8d}\n{block.hex()}\n"
    texts = [("Raw profile type exif", raw), ("XML:com.adobe.xmp", xmp(orientation).decode())]
    for keyword, text in texts:
        for info in with_text(keyword, text):
            data = encode(PIXELS, "PNG", pnginfo=info)
            np.testing.assert_array_equal(decode_image(data), as_pillow_turns(data))
            upright = PIXELS.shape[:2] if orientation != 6 else PIXELS.shape[1::-1]
            assert decode_image(data).shape[:2] == upright


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"acTL", struct.pack(">II", 0, 0)),  # Pillow warns of all of these
        chunk(b"acTL", struct.pack(">II", 2, 0)) * 2,
        chunk(b"fcTL", bytes(3)),
        chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"zTXt", b"Raw profile type exif\0\0no zlib"),
        chunk(b"tEXt", b"Raw profile type exif\0\n\n\nxyz"),
        chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        chunk(b"pHYs", b""),
    ],
)
def test_odd_chunks_of_a_png_neither_warn_nor_spoil_it(encode: Encode, odd: bytes) -> None:
    data = encode(PIXELS, "PNG")
    place = data.index(b"IDAT") - 4
    for image in (data[:place] + odd + data[place:], data[:-12] + odd + data[-12:]):
        np.testing.assert_array_equal(decode_image(image), PIXELS)


def test_animated_png_gives_its_default_image(encode: Encode) -> None:
    frames = [Image.fromarray(PIXELS[::-1]), Image.fromarray(PIXELS[:, ::-1])]
    for shown in (False, True):
        data = encode(PIXELS, "PNG", save_all=True, append_images=frames, default_image=shown)
        np.testing.assert_array_equal(decode_image(data), PIXELS)


def test_odd_segments_of_a_jpeg_neither_warn_nor_spoil_it(encode: Encode) -> None:
    data = encode(PIXELS, "JPEG")
    expected = decode_image(data)
    bodies = (b"Exif\0\0II*\0\xff\xff\xff\xff", b"MPF\0junk", b"ICC_PROFILE\0", b"Exif\0\0", b"")
    segments = [b"\xff\xe1" + struct.pack(">H", len(b) + 2) + b for b in bodies]
    segments += [b"\xff\xe2" + segment[2:] for segment in segments]
    segments.append(b"\xff\xff" + segments[0])  # padding before the marker
    quantisation = data.index(b"\xff\xdb")
    for segment in segments:
        for place in (2, quantisation):
            image = data[:place] + segment + data[place:]
            np.testing.assert_array_equal(decode_image(image), expected)


def tiff_entry(data: bytes, tag: int) -> int:
    """Where the entry of `tag` begins in a little-endian TIFF."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    places = [start + 2 + 12 * i for i in range(count)]
    return next(p for p in places if struct.unpack_from("<H", data, p)[0] == tag)


def test_odd_tags_of_a_tiff_neither_warn_nor_spoil_it(encode: Encode) -> None:
    data = encode(PIXELS, "TIFF", tiffinfo={270: "a description", 305: "a program"})
    for count, offset in ((2**31, 0), (100, 2**32 - 1), (60, len(data) - 4)):
        odd = bytearray(data)
        struct.pack_into("<II", odd, tiff_entry(data, 270) + 4, count, offset)
        np.testing.assert_array_equal(decode_image(bytes(odd)), PIXELS)
    twice = bytearray(data)  # "had too many entries"
    struct.pack_into("<HIHH", twice, tiff_entry(data, 278) + 2, 3, 2, 6, 6)
    np.testing.assert_array_equal(decode_image(bytes(twice)), PIXELS)


def test_a_tiff_whose_tags_are_cut_off_is_refused(encode: Encode) -> None:
    data = bytearray(encode(PIXELS, "TIFF"))
    struct.pack_into("<II", data, tiff_entry(data, 258) + 4, 1000, 8)
    with pytest.raises(ImageError, match="truncated: .*tag 258 lies behind the end"):
        decode_image(bytes(data))


def test_damaged_files_neither_warn_nor_raise_anything_else(
    encode: Encode, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(4)
    note = {"exif": exif(6)}
    for kind, options in KINDS:
        whole = encode(PIXELS, kind, **options, **note)
        for _ in range(60):
            damaged = bytearray(whole[: rng.integers(0, len(whole) + 40)])
            for _ in range(3):
                if damaged:
                    damaged[rng.integers(0, len(damaged))] = rng.integers(0, 256)
            try:
                decode_image(bytes(damaged), max_pixels=10_000)
            except ImageError as error:
                assert "Warning" not in str(error)
    assert capfd.readouterr().err == ""
