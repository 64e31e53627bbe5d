from __future__ import annotations

import contextlib
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from PIL.Image import Exif

from cliptex.shards.images import IMAGE_EXTENSIONS, ImageError, decode_image, image_extension

Encode = Callable[..., bytes]

KINDS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]
KINDS += ["AVIF"] if features.check("avif") else []

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    return caught.value.reason


def png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    """A PNG of any claimed size with any compressed data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_give_the_pixels(encode: Encode, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode_image(encode(pixels, kind, **options))
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous and decoded.flags.writeable
    np.testing.assert_array_equal(decoded, pixels)


def test_extension_comes_from_the_content(encode: Encode) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    for kind, extension in {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}.items():
        assert image_extension(encode(pixels, kind)) == extension
    assert image_extension(b"plain text") is None
    assert image_extension(b"....ftypheic\0\0\0\0mif1heic") is None


@pytest.mark.parametrize("extension", IMAGE_EXTENSIONS)
def test_every_extension_of_the_list_is_decoded(tmp_path: Path, extension: str) -> None:
    if extension == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    path = tmp_path / f"x.{extension}"
    rgb = np.full((12, 16, 3), (200, 40, 90), np.uint8)
    mode = {"pgm": "L", "pbm": "1"}.get(extension, "RGB")
    Image.fromarray(rgb).convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(path.read_bytes()), expected)
    assert image_extension(path.read_bytes()) in IMAGE_EXTENSIONS


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(encode: Encode, kind: str) -> None:
    values = np.array([[0, 257, 1000, 32896, 65535]], dtype=np.uint16)
    decoded = decode_image(encode(values, kind))
    assert decoded[0, :, 0].tolist() == [0, 1, 4, 128, 255]
    assert (decoded == decoded[:, :, :1]).all()


def test_tiff_of_several_pages_gives_the_first(encode: Encode) -> None:
    pages = [Image.new("RGB", (4, 3), colour) for colour in (RED, GREEN)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert (decode_image(data) == RED).all()


def test_thirty_two_bits_a_channel_are_refused(encode: Encode) -> None:
    assert reason(encode(np.ones((2, 2), np.float32), "TIFF")) == "broken"
    assert reason(encode(np.ones((2, 2), np.int32), "TIFF")) == "broken"


def test_empty_and_unknown() -> None:
    assert reason(b"") == "empty"
    assert reason(b"<html>not found</html>") == "unknown-format"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("min_side", [None, 32])
def test_truncated_files_are_refused(
    encode: Encode, kind: str, share: float, min_side: int | None
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    data = encode(pixels, kind)
    assert reason(
        data[: int(len(data) * share)], **({"min_side": min_side} if min_side else {})
    ) in (
        "truncated",
        "broken",
    )


def test_truncated_jpeg_is_called_truncated(encode: Encode) -> None:
    data = encode(np.random.default_rng(1).integers(0, 256, (99, 99, 3), dtype=np.uint8), "JPEG")
    assert reason(data[: len(data) // 2]) == "truncated"


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_no_prefix_of_a_header_escapes_as_another_error(encode: Encode, cut: int) -> None:
    for kind in KINDS:
        reason(encode(np.zeros((9, 9, 3), np.uint8), kind)[:cut])


def test_flipped_bytes_never_raise_anything_else(encode: Encode) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for kind in KINDS:
        whole = np.frombuffer(encode(pixels, kind), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, min(len(whole), 120), 3)] = rng.integers(0, 256, 3)
            with contextlib.suppress(ImageError):
                assert decode_image(damaged.tobytes(), max_pixels=10_000).shape[2] == 3


def test_bomb_is_refused_from_its_header() -> None:
    data = png(20_000, 20_000, 8, 2, b"")
    assert reason(data) == "too-large"  # were it decoded, the missing data would be reported


def test_real_bomb_of_20000_by_20000_pixels() -> None:
    packer = zlib.compressobj()
    data = b"".join(packer.compress(bytes(2501)) for _ in range(20_000)) + packer.flush()
    bomb = png(20_000, 20_000, 1, 0, data)
    assert len(bomb) < 100_000
    assert reason(bomb) == "too-large"


@pytest.mark.parametrize("side", [8_000, 10_000, 20_000])
def test_gif_whose_frame_is_larger_than_its_header_says(encode: Encode, side: int) -> None:
    data = bytearray(encode(Image.new("P", (2, 2)), "GIF"))
    frame = data.index(b"\x2c\0\0\0\0\2\0\2\0")
    data[frame + 5 : frame + 9] = struct.pack("<HH", side, side)
    assert reason(bytes(data)) == "too-large"


def test_the_largest_image_allowed() -> None:
    data = encode_zeros(100, 50)
    assert decode_image(data, max_pixels=5000).shape == (50, 100, 3)
    assert reason(data, max_pixels=4999) == "too-large"


def encode_zeros(width: int, height: int) -> bytes:
    return png(width, height, 8, 0, zlib.compress(bytes((width + 1) * height)))


def test_cmyk_jpeg(encode: Encode) -> None:
    data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    decoded = decode_image(data)
    assert decoded.shape == (16, 16, 3)
    np.testing.assert_allclose(decoded[8, 8], RED, atol=6)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(encode: Encode, kind: str) -> None:
    frames = [Image.new("RGB", (10, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    decoded = decode_image(data)
    assert decoded.shape == (8, 10, 3)
    assert (decoded == RED).all()


def test_palette_with_transparency_on_white(encode: Encode) -> None:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([*RED, *BLUE])
    image.putpixel((3, 1), 1)
    decoded = decode_image(encode(image, "PNG", transparency=0))
    assert (decoded[0, 0] == WHITE).all()
    assert (decoded[1, 3] == BLUE).all()
    opaque = decode_image(encode(image, "PNG"))
    assert (opaque[0, 0] == RED).all()


def test_alpha_on_white(encode: Encode) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 51, 255)  # black at opacity 0, 1/5, 1
    assert decode_image(encode(rgba, "PNG"))[0, :, 0].tolist() == [255, 204, 0]
    grey = Image.fromarray(rgba[:, :, :1].repeat(2, 2) * 0 + rgba[:, :, [0, 3]], "LA")
    assert decode_image(encode(grey, "PNG"))[0, :, 0].tolist() == [255, 204, 0]


def test_grey_and_bilevel(encode: Encode) -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    assert decode_image(encode(grey, "PNG"))[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]
    assert (decode_image(encode(Image.new("1", (3, 3), 1), "PNG")) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied(encode: Encode, orientation: int, kind: str) -> None:
    # a picture whose four quarters differ, stored as a camera held `orientation` way would
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = RED, GREEN, BLUE
    back = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}[kind]
    data = encode(np.ascontiguousarray(back), kind, exif=exif, **options)
    decoded = decode_image(data)
    assert decoded.shape == upright.shape
    assert decoded.flags.c_contiguous
    for y, x in ((4, 4), (4, 40), (28, 4), (28, 40)):
        np.testing.assert_allclose(decoded[y, x], upright[y, x], atol=12)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0junk" * 9]
)
def test_damaged_exif_is_ignored_in_silence(encode: Encode, exif: bytes) -> None:
    data = encode(np.zeros((4, 6, 3), np.uint8), "JPEG", exif=exif)
    assert decode_image(data).shape == (4, 6, 3)  # warnings are errors in these tests


def test_draft_keeps_the_short_side(encode: Encode) -> None:
    data = encode(np.full((400, 600, 3), 90, np.uint8), "JPEG")
    assert decode_image(data).shape == (400, 600, 3)
    assert decode_image(data, min_side=100).shape == (100, 150, 3)
    assert decode_image(data, min_side=101).shape == (200, 300, 3)
    assert decode_image(data, min_side=300).shape == (400, 600, 3)


def test_error_can_be_sent_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("empty", "zero bytes")))
    assert (error.reason, str(error)) == ("empty", "empty: zero bytes")
