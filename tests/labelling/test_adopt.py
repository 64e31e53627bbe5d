"""Labels made elsewhere, in each form and layout, come back as they were meant."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from cliptex.experts.protocol import FRAME_SIGNS
from cliptex.labelling.adopt import ClassPng, DepthPng, NormalsPng, adopt_labels
from cliptex.labelling.verify import verify_labels
from cliptex.labels.ledger import Status
from cliptex.labels.reader import LabelReader

CLASSES = ClassPng(classes=("background", "cat"))
IDS = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def adopt(shards, source: Path, tmp_path: Path, form=CLASSES):
    return adopt_labels(shards, source, tmp_path / "labels", form, name="mine", origin="by hand")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_classes__by_key(shards, source: Path, tmp_path: Path) -> None:
    (source / "00003.png").write_bytes(png(IDS))
    (source / "00008.png").write_bytes(png(IDS)[:-30])
    (source / "stranger.png").write_bytes(png(IDS))
    report = adopt(shards, source, tmp_path)
    assert (report.images, report.found, report.unused) == (12, 1, 1)
    assert len(report.unreadable) == 1 and "00008.png" in report.unreadable[0]
    reader = LabelReader(report.folder)
    assert reader.manifest.source == "by hand" and reader.kind == CLASSES.kind
    stored = reader.read("tiny-00000.tar", "00003")
    assert stored is not None and np.array_equal(stored.array, IDS)
    assert reader.statuses() == {Status.OK: 1, Status.NO_LABEL: 11}
    assert verify_labels(shards, report.folder).ok


def test_classes__by_shard_and_key(shards, source: Path, tmp_path: Path) -> None:
    """SHARD/KEY.png goes before KEY.png, and a palette's indices are the ids."""
    (source / "tiny-00000").mkdir()
    picture = Image.new("P", (3, 2))
    picture.putdata(IDS.ravel().tolist())
    picture.putpalette([9] * 768)
    picture.save(source / "tiny-00000" / "00003.png")
    (source / "00003.png").write_bytes(png(np.zeros((2, 3), np.uint8)))
    report = adopt(shards, source, tmp_path)
    stored = LabelReader(report.folder).read("tiny-00000.tar", "00003")
    assert stored is not None and np.array_equal(stored.array, IDS)
    assert (report.found, report.unused) == (1, 1)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_classes__of_few_bits_are_what_is_stored(bits: int) -> None:
    ids = np.arange(12).reshape(3, 4) % 2**bits
    if bits == 1:
        data = png(ids.astype(bool))
    else:  # Pillow keeps the upper bits of a byte
        buffer = io.BytesIO()
        spread = Image.fromarray((ids * 255 // (2**bits - 1)).astype(np.uint8))
        spread.save(buffer, "PNG", bits=bits)
        data = buffer.getvalue()
    assert data[24:26] == bytes([bits, 0]), "the depth and the colour type of the header"
    np.testing.assert_array_equal(CLASSES.read(data), ids)


def test_depth__becomes_disparity(shards, source: Path, tmp_path: Path) -> None:
    (source / "00000.png").write_bytes(png(np.array([[1000, 2000], [0, 4000]], np.uint16)))
    report = adopt(shards, source, tmp_path, DepthPng(scale=0.001, unit="m"))
    reader = LabelReader(report.folder)
    assert reader.manifest.kind["unit"] == "1/m"
    assert reader.manifest.preprocessing["scale"] == 0.001
    stored = reader.read("tiny-00000.tar", "00000")
    assert stored is not None
    expected = np.array([[1, 0.5], [np.nan, 0.25]])
    np.testing.assert_allclose(stored.array, expected, atol=5e-4)


def test_depth__at_full_precision(shards, source: Path, tmp_path: Path) -> None:
    codes = np.arange(1000, 3000, dtype=np.uint16).reshape(40, 50)
    (source / "00000.png").write_bytes(png(codes))
    form = DepthPng(scale=0.001, unit="m")
    options = {"name": "fine", "origin": "by hand", "codec": "png-scalar-16"}
    report = adopt_labels(shards, source, tmp_path / "labels", form, **options)
    reader = LabelReader(report.folder)
    stored = reader.read("tiny-00000.tar", "00000")
    assert reader.manifest.codec == "png-scalar-16" and stored is not None
    np.testing.assert_allclose(stored.array, 1000 / codes, atol=1e-5)


def test_depth__that_is_disparity() -> None:
    form = DepthPng(scale=2.0, unit="relative disparity", invalid=7)
    found = form.read(png(np.array([[0, 7, 3]], np.uint8)))
    np.testing.assert_array_equal(found, np.array([[0, np.nan, 6]], np.float32))


def test_normals__are_turned(shards, source: Path, tmp_path: Path) -> None:
    """A wall that faces the camera is (0, 0, 1) in any frame; a floor is down, away from it."""
    codes = np.array([[[128, 128, 255], [128, 255, 128], [0, 0, 0]]], np.uint8)
    (source / "00000.png").write_bytes(png(codes))
    form = NormalsPng(frame="right-up-back-toward")
    report = adopt(shards, source, tmp_path, form)
    stored = LabelReader(report.folder).read("tiny-00000.tar", "00000")
    assert stored is not None
    np.testing.assert_allclose(stored.array[0], [[0, 0, 1], [0, 1, 0], [0, 0, 0]], atol=0.02)
    with pytest.raises(ValueError, match="unknown frame"):
        NormalsPng(frame="sideways")


def test_aligned_tars(shards, source: Path, tmp_path: Path) -> None:
    """A tar per shard, keys in another order, a missing one and a stranger among them."""
    with tarfile.open(source / "tiny-00001.tar", "w") as tar:
        for key in ("00006", "other", "00004"):
            data = png(np.full((2, 3), key == "00006", np.uint8))
            info = tarfile.TarInfo(f"{key}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    report = adopt(shards, source, tmp_path)
    assert (report.found, report.unused) == (2, 1)
    reader = LabelReader(report.folder)
    six, four = (reader.read("tiny-00001.tar", key) for key in ("00006", "00004"))
    assert six is not None and four is not None
    assert six.array.all() and not four.array.any()
    assert reader.read("tiny-00001.tar", "00005") is None


def write_tars(folder, labels: dict[str, np.ndarray]) -> None:
    """As 4M keeps a modality: a tar for each of images, a PNG for each sample."""
    for shard in range(3):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for key in (f"{4 * shard + i:05d}" for i in range(4)):
                data = png(labels[key])
                info = tarfile.TarInfo(f"{key}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        (folder / f"tiny-{shard:05d}.tar").write_bytes(buffer.getvalue())


@pytest.mark.parametrize("remote", [False, True])
def test_4m__depth_of_16_bits(
    shards, source: Path, memory: UPath, tmp_path: Path, remote: bool
) -> None:
    """Each image's disparity spread over all codes, which is relative: its scale is lost."""
    rng = np.random.default_rng(0)
    codes = {f"{i:05d}": rng.integers(0, 65536, (20, 30)).astype(np.uint16) for i in range(12)}
    for code in codes.values():
        code[0, :2] = 0, 65535
    place = memory / "source" if remote else source
    write_tars(place, codes)
    form = DepthPng(scale=1 / 65535, unit="relative disparity", invalid=-1)
    options = {"name": "depth", "origin": "4M", "learnt_from": ("nyu-depth",)}
    exact = {"codec": "png-scalar-16", **options}
    report = adopt_labels(shards, place, tmp_path / "labels", form, **exact)
    assert (report.found, report.unused) == (12, 0)
    reader = LabelReader(report.folder)
    assert reader.manifest.learnt_from == ("nyu-depth",)
    assert reader.manifest.codec == "png-scalar-16"
    for shard in shards.shards:
        for key in shards.keys(shard):
            stored = reader.read(shard, key)
            assert stored is not None
            np.testing.assert_allclose(stored.array, codes[key] / 65535, atol=1.1 / 131068)


@pytest.mark.parametrize("codec", [None, "png-normal-rgb8"])
def test_4m__normals_of_rgb(shards, source: Path, tmp_path: Path, codec: str | None) -> None:
    """RGB = (n + 1) * 127.5 in OmniData's axes; the largest error is PNG's and the codec's."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(12, 20, 30, 3))
    normals /= np.linalg.norm(normals, axis=3, keepdims=True)
    coded = np.rint((normals + 1) * 127.5).astype(np.uint8)
    write_tars(source, {f"{i:05d}": coded[i] for i in range(12)})
    form = NormalsPng(frame="right-up-back-toward")
    options = {"name": "normals", "origin": "4M", "codec": codec}
    report = adopt_labels(shards, source, tmp_path / "labels", form, **options)
    assert report.found == 12
    signs = np.array(FRAME_SIGNS["right-up-back-toward"])
    reader = LabelReader(report.folder)
    for number in range(12):
        stored = reader.read(f"tiny-{number // 4:05d}.tar", f"{number:05d}")
        assert stored is not None
        cosine = (stored.array * normals[number] * signs).sum(axis=2)
        assert (
            np.degrees(np.arccos(cosine.clip(-1, 1))).max() < (1.36 if codec is None else 0.4) + 0.4
        )


def test_remote_folder_of_png(shards, memory: UPath, tmp_path: Path) -> None:
    (memory / "source/tiny-00000/00003.png").write_bytes(png(IDS))
    (memory / "source/00008.png").write_bytes(png(IDS))
    report = adopt_labels(
        shards, memory / "source", tmp_path / "labels", CLASSES, name="mine", origin="by hand"
    )
    assert (report.found, report.unused) == (2, 0)
    stored = LabelReader(report.folder).read("tiny-00000.tar", "00003")
    assert stored is not None and np.array_equal(stored.array, IDS)


def test_refusals(shards, source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither PNG nor tars"):
        adopt(shards, source, tmp_path)
    (source / "x.png").write_bytes(png(IDS))
    with pytest.raises(ValueError, match=r"00000\.png or tiny-00000/00000\.png"):
        adopt(shards, source, tmp_path)
    assert not (tmp_path / "labels").exists(), "refused before anything is written"
    (source / "00000.png").write_bytes(png(np.zeros((2, 2, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"00000\.png: a PNG of mode RGB"):
        adopt(shards, source, tmp_path)
