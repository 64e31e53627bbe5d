"""The format's own description: its reader reads real stores, its tables are what is written."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.ledger import ROW, Entry, Status, ledger_bytes, read_ledger
from cliptex.labels.manifest import Manifest, claim_store
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import ShardLabelWriter, add_label

DOCUMENT = Path(__file__).parents[2] / "docs" / "label-store.md"
MANY = ClassMap(tuple(f"class {i}" for i in range(300)), ignore=65535)
CASES: list[tuple[Kind, str]] = [
    (ClassMap(("background", "cat")), "png-class-8"),
    (MANY, "png-class-16"),
    (ScalarField("1/m"), "png-scalar-10"),
    (ScalarField("m"), "png-scalar-16"),
    (UnitVector(), "png-normal-oct"),
    (UnitVector(), "png-normal-rgb8"),
]


@pytest.fixture(scope="module")
def read_label() -> Callable:
    """The document's reader, run as it stands there."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "def read_label" in block]
    assert "cliptex" not in code
    namespace: dict = {}
    exec(compile(code, str(DOCUMENT), "exec"), namespace)
    return namespace["read_label"]


def array_of(kind: Kind, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if isinstance(kind, ClassMap):
        array = rng.integers(0, len(kind.classes), (7, 9))
        array[0, 0] = kind.ignore
    elif isinstance(kind, ScalarField):
        array = rng.normal(size=(7, 9))
        array[0, 0] = np.nan
    else:
        array = rng.normal(size=(7, 9, 3))
        array[0, 0] = 0
    return array


@pytest.mark.parametrize(("kind", "codec"), CASES, ids=lambda case: str(case)[:20])
def test_the_documents_reader(read_label, tmp_path: Path, kind: Kind, codec: str) -> None:
    manifest = Manifest.of(kind, expert="e", dataset_id="d", source="a test", codec=codec)
    folder = claim_store(tmp_path, manifest)
    instances = {1: 3} if isinstance(kind, ClassMap) else None
    with ShardLabelWriter(folder, "sub/0.tar") as writer:
        for number, key in enumerate(("a", "käfer/1")):
            sure = np.full((3, 4), 0.2) if number else None
            label = array_of(kind, number)
            add_label(writer, manifest, key, label, confidence=sure, instances=instances)
        writer.fail("b", Status.EXPERT_ERROR, "no")
        writer.commit()
    reader = LabelReader(folder)
    for key in ("a", "käfer/1"):
        label, confidence = read_label(folder, "sub/0.tar", key)
        ours = reader.read("sub/0.tar", key, confidence=True)
        assert ours is not None
        np.testing.assert_allclose(label, ours.array, atol=1e-6)
        if ours.confidence is None:
            assert key == "a" and confidence is None
        else:
            np.testing.assert_allclose(confidence, ours.confidence, atol=1e-7)
    assert read_label(folder, "sub/0.tar", "b") is None
    as_version(folder / "sub" / "0.ledger", 2)
    label, confidence = read_label(folder, "sub/0.tar", "käfer/1")
    ours = LabelReader(folder).read("sub/0.tar", "käfer/1", confidence=True)
    assert ours is not None and ours.confidence is not None
    np.testing.assert_allclose(confidence, ours.confidence, atol=1e-7)
    as_version(folder / "sub" / "0.ledger", 1)
    label, confidence = read_label(folder, "sub/0.tar", "käfer/1")
    ours = LabelReader(folder).read("sub/0.tar", "käfer/1", confidence=True)
    assert ours is not None and ours.confidence is None and confidence is None
    np.testing.assert_allclose(label, ours.array, atol=1e-6)


def as_version(path: Path, version: int) -> None:
    """Rewrite a ledger in an older form by hand: rows without checksums, and without confidence."""
    data = path.read_bytes()
    now, n = struct.unpack_from("<8xII", data)
    size, kept = {2: 53, 3: 61}[now], {1: 37, 2: 53}[version]
    rows = b"".join(data[96 + size * i :][:kept] for i in range(n))
    body = rows + data[96 + size * n :]
    header = bytearray(data[:96])
    struct.pack_into("<I", header, 8, version)
    struct.pack_into("<I", header, 68, zlib.crc32(body))
    path.write_bytes(bytes(header) + body)


def test_ledger__byte_by_byte(tmp_path: Path) -> None:
    """Written by hand from the document's tables."""
    row = struct.pack("<BQQQQIQQII", 0, 512, 70, 1536, 20, 0xFFFFFFFF, 2560, 80, 123, 45)
    failed = struct.pack("<BQQQQIQQII", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    body = row + failed + b"a\0\0" + b"bcd" + b"lost"
    head = b"CLIPTEXL" + struct.pack("<IIQQ", 3, 2, 10240, 4) + b"\xab" * 32
    blank = head + struct.pack("<II", 3, 0) + bytes(24) + body
    expected = head + struct.pack("<II", 3, zlib.crc32(blank)) + blank[72:]
    path = tmp_path / "0.ledger"
    places = {"offset": 512, "size": 70, "meta_offset": 1536, "meta_size": 20}
    reliable = {"confidence_offset": 2560, "confidence_size": 80, "crc": 123, "confidence_crc": 45}
    entries = [
        Entry(key="a", status=Status.OK, **places, **reliable),
        Entry(key="bcd", status=Status.EXPERT_ERROR, message="lost"),
    ]
    path.write_bytes(ledger_bytes(entries, 10240, "ab" * 32))
    assert path.read_bytes() == expected and len(row) == ROW.itemsize == 61
    as_version(path, 1)
    old = read_ledger(path)
    assert old.rows[0].tolist() == (0, 512, 70, 1536, 20, 0xFFFFFFFF, 0, 0, 0, 0)
    assert old.find("bcd") == 1 and old.message(1) == "lost"


def test_ledger__of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0.ledger"
    path.write_bytes(ledger_bytes([], 0, "00" * 32))
    data = bytearray(path.read_bytes())
    data[8] = 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match="0.ledger is of version 4; this program reads 1 to 3"):
        read_ledger(path)


def test_the_document_names_every_codec_and_field() -> None:
    text = DOCUMENT.read_text()
    codecs = {codec for kind, _ in CASES for codec in kind.codecs}
    for name in (*codecs, *Manifest.model_fields):
        assert f"`{name}`" in text, name
    assert {codec for _, codec in CASES} == codecs
    assert all(f"`{kind.default_codec}`" in text for kind, _ in CASES)
