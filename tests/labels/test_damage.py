"""Damage in a store is noticed where it is read: no other value ever comes without an error."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cliptex.labels import reader
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.manifest import Manifest, claim_store, read_manifest
from cliptex.labels.reader import DamagedLabel, LabelReader
from cliptex.labels.writer import ShardLabelWriter, add_label

KEYS = ("a", "b", "c")
FLIPS = 2000
KINDS: tuple[Kind, ...] = (
    ClassMap(("background", "cat", "dog")),
    ScalarField("1/m"),
    UnitVector(),
)


def make_store(labels: Path, kind: Kind) -> Path:
    """One shard of three labels of 12x16 pixels, with confidence, and one failed image."""
    rng = np.random.default_rng(0)
    manifest = Manifest.of(kind, expert="e", dataset_id="d", source="a test", confidence="made")
    folder = claim_store(labels, manifest)
    with ShardLabelWriter(folder, "0.tar", image_size=1000) as writer:
        for key in KEYS:
            if isinstance(kind, ClassMap):
                array = rng.integers(0, 3, (12, 16))
            else:
                array = rng.normal(size=(12, 16) if isinstance(kind, ScalarField) else (12, 16, 3))
            instances = {1: 2} if isinstance(kind, ClassMap) else None
            sure = rng.random((6, 8))
            add_label(writer, manifest, key, array, confidence=sure, instances=instances)
        writer.fail("d", reader.Status.EXPERT_ERROR, "no memory")
        writer.commit()
    return folder


def values(folder: Path) -> list[bytes]:
    """All that the store says: labels as stored, confidence, counts, failures, manifest."""
    store = LabelReader(folder)
    said: list[object] = [store.manifest.model_dump(mode="json"), *store.failures()]
    found: list[bytes] = []
    for key in (*KEYS, "d"):
        label = store.read_encoded("0.tar", key, confidence=True)
        said.append((key, None if label is None else label.meta))
        if label is not None:
            found += [label.png, label.confidence or b""]
    ledger = store.ledger("0.tar")
    assert ledger is not None
    said.append((ledger.names(), ledger.tar_size, ledger.tar_sha256, ledger.image_size))
    return [*found, repr(said).encode()]


def test_of_2000_flipped_bits_none_gives_another_value(tmp_path: Path) -> None:
    """Over tar, ledger and manifest: an error that names the file, or the very same values."""
    rng = np.random.default_rng(0)
    outcomes: Counter[tuple[str, str]] = Counter()
    for kind in KINDS:
        folder = make_store(tmp_path / str(kind.to_json()["kind"]), kind)
        sound = values(folder)
        files = [folder / name for name in ("0.tar", "0.ledger", "manifest.json")]
        whole = [path.read_bytes() for path in files]
        sizes = [len(data) for data in whole]
        open_files = [os.open(path, os.O_RDWR) for path in files]
        for number in rng.integers(0, 8 * sum(sizes), FLIPS // len(KINDS) + 1):
            place, file = int(number) // 8, 0
            while place >= sizes[file]:
                place, file = place - sizes[file], file + 1
            path, before = files[file], whole[file][place]
            flip = before ^ 1 << (int(number) % 8)
            os.pwrite(open_files[file], bytes([flip]), place)
            try:
                outcome = "same" if values(folder) == sound else "SILENT"
            except ValueError as error:
                outcome = "refused" if str(folder) in str(error) else f"UNNAMED {error}"
            outcomes[path.name, outcome] += 1
            os.pwrite(open_files[file], bytes([before]), place)
        for descriptor in open_files:
            os.close(descriptor)
    assert outcomes.total() >= FLIPS
    found = {outcome for _, outcome in outcomes}
    assert found == {"same", "refused"}, outcomes
    assert {name for name, outcome in outcomes if outcome == "same"} == {"0.tar"}, outcomes


def test_one_damaged_label_costs_itself_alone(tmp_path: Path) -> None:
    folder = make_store(tmp_path, KINDS[0])
    store = LabelReader(folder)
    ledger = store.ledger("0.tar")
    assert ledger is not None
    data = bytearray((folder / "0.tar").read_bytes())
    data[int(ledger.rows["confidence_offset"][1]) + 20] ^= 1
    (folder / "0.tar").write_bytes(data)
    assert LabelReader(folder).read("0.tar", "b") is not None, "its confidence is not asked for"
    with pytest.raises(DamagedLabel, match=r"0\.tar.*confidence of 'b'.*[Rr]emove .*0\.ledger"):
        LabelReader(folder).read("0.tar", "b", confidence=True)
    assert LabelReader(folder).read("0.tar", "a", confidence=True) is not None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no JSON"),
        (b'{"format": "cliptex-la', "no JSON"),
        (b"[1, 2]", "no object"),
        (b"null", "no object"),
        (b"[" * 100_000, "no JSON"),
        (b"{}", "dataset_id: Field required"),
        (b"\xff\xfe{}", "no JSON"),
    ],
)
def test_odd_manifests__one_line_with_file_and_remedy(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        read_manifest(tmp_path)
    text = str(caught.value)
    assert str(tmp_path / "manifest.json") in text and "label anew" in text and "\n" not in text


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", {"kind": []}), ("kind", {}), ("kind", None), ("codec", 3), ("max_side", "wide")],
)
def test_odd_fields_of_a_manifest__are_named(tmp_path: Path, field: str, value: object) -> None:
    folder = make_store(tmp_path, KINDS[0])
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content[field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged: its fields do not fit"):
        read_manifest(folder)
    del content["checksum"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"manifest\.json.*{field}"):
        read_manifest(folder)


def test_a_manifest_that_was_changed_by_hand__is_read_without_its_checksum(tmp_path: Path) -> None:
    folder = make_store(tmp_path, KINDS[0])
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps({**content, "licence": "CC0"}))
    assert read_manifest(folder).licence == "CC0"
