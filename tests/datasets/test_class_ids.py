"""Class ids of masks of every depth that PNG has."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from cliptex.datasets import Ade20k, VocSegmentation
from cliptex.datasets.class_ids import read_ids
from cliptex.datasets.hub import HubVoc
from datasets import Dataset, Features, Image

from .conftest import picture, save_image

GREY, PALETTE = 0, 3  # PNG's colour types


def png(ids: np.ndarray, bits: int, colour: int = GREY) -> bytes:
    """The bytes of a PNG whose samples are `ids` (H, W), written here: Pillow writes few depths."""
    rows = b""
    for row in ids.tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = ids.shape
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    # no colour equals its index: reading colours would be noticed
    colours = bytes((7 * i + 3) % 256 for i in range(3 * 2 ** min(bits, 8)))
    palette = chunk(b"PLTE", colours) if colour == PALETTE else b""
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + palette + body


@pytest.mark.parametrize(
    ("bits", "colour"), [(b, GREY) for b in (1, 2, 4, 8, 16)] + [(b, PALETTE) for b in (1, 2, 4, 8)]
)
def test_ids__are_what_is_stored_at_any_depth(bits: int, colour: int, tmp_path: Path) -> None:
    most = 2**bits
    stored = np.linspace(0, most - 1, 21).round().astype(np.int64).reshape(3, 7)
    stored[0, :2] = 0, 1
    path = tmp_path / "mask.png"
    path.write_bytes(png(stored, bits, colour))
    ids = read_ids(path)
    np.testing.assert_array_equal(ids, stored)
    assert ids.dtype == (np.uint16 if bits == 16 else np.uint8)


MASK = np.array([[0, 1, 2], [3, 0, 1]])


def test_voc__grey_masks_of_few_bits(voc: Path) -> None:
    path = voc / "VOC2012" / "SegmentationClassAug" / "2008_000003.png"
    for bits in (2, 4):
        path.write_bytes(png(MASK, bits))
        np.testing.assert_array_equal(VocSegmentation(voc, "val")[0].target, MASK)
    path.write_bytes(png(MASK % 2, 1))
    np.testing.assert_array_equal(VocSegmentation(voc, "val")[0].target, MASK % 2)


def test_ade__grey_masks_of_few_bits(ade: Path) -> None:
    (ade / "annotations/validation/ADE_val_00000000.png").write_bytes(png(MASK, 4))
    target = Ade20k(ade, "validation")[0].target
    np.testing.assert_array_equal(target, [[255, 0, 1], [2, 255, 0]])


def test_hub__grey_masks_of_few_bits(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", picture(0, (2, 3)))
    cells = {"image": (tmp_path / "a.png").read_bytes(), "mask": png(MASK, 2)}
    rows = {name: [{"bytes": data, "path": None}] for name, data in cells.items()}
    features = Features({"image": Image(), "mask": Image()})
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    np.testing.assert_array_equal(HubVoc(tmp_path / "set", "val")[0].target, MASK)
