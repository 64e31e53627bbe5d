"""Every fault of a store is named with its file and its remedy, and a sound store is sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cliptex.labelling.engine import label_shards
from cliptex.labelling.verify import verify_labels
from cliptex.labels.kinds import ClassMap, ScalarField, Tolerance
from cliptex.labels.ledger import ROW, Entry, Status, ledger_bytes, ledger_path, read_ledger
from cliptex.labels.manifest import Manifest, claim_store
from cliptex.labels.writer import ShardLabelWriter, add_label

CLASSES = ClassMap(("background", "cat"))
NAN = np.float32(np.nan)


@pytest.fixture
def folder(shards, make_expert, tmp_path: Path) -> Path:
    return label_shards(shards, [make_expert()], tmp_path / "labels")[0].folder


def rewrite(tar: Path, change) -> None:
    """The ledger of `tar` with other entries: `change` takes and returns the list of keys."""
    ledger = read_ledger(ledger_path(tar))
    keys = [key.decode() for key in ledger.keys]
    rows = dict(zip(keys, ledger.rows, strict=True))
    entries = [
        Entry(
            key=key,
            status=Status.OK,
            offset=int(rows[key]["offset"]) if key in rows else 0,
            size=int(rows[key]["size"]) if key in rows else 0,
            meta_offset=int(rows[key]["meta_offset"]) if key in rows else 0,
            meta_size=int(rows[key]["meta_size"]) if key in rows else 0,
        )
        for key in change(keys)
    ]
    ledger_path(tar).write_bytes(ledger_bytes(entries, ledger.tar_size, ledger.tar_sha256))


def test_a_sound_store(shards, folder: Path, make_expert) -> None:
    report = verify_labels(shards, folder, sample=5, expert=make_expert())
    assert report.ok and (report.shards, report.labelled, report.images) == (3, 3, 12)
    assert (report.decoded, report.inferred) == (12, 5)
    assert report.bytes_read == sum(tar.stat().st_size for tar in folder.glob("*.tar"))
    assert "nothing is wrong" in str(report)


def test_a_flipped_byte(shards, folder: Path) -> None:
    tar = folder / "tiny-00001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    (problem,) = verify_labels(shards, folder).problems
    assert problem.file == tar and "sha256" in problem.what
    assert "tiny-00001.ledger" in problem.remedy and "label run" in problem.remedy


def test_truncation_and_absence(shards, folder: Path) -> None:
    cut, gone = folder / "tiny-00000.tar", folder / "tiny-00002.tar"
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    report = verify_labels(shards, folder)
    assert [(p.file, p.what.split()[0]) for p in report.problems] == [(cut, "it"), (gone, "it")]
    assert "bytes" in report.problems[0].what and "not exist" in report.problems[1].what
    assert report.decoded == 4, "only the sound shard is drawn from"


def test_a_damaged_ledger(shards, folder: Path) -> None:
    ledger = folder / "tiny-00001.ledger"
    data = bytearray(ledger.read_bytes())
    data[-1] ^= 1
    ledger.write_bytes(data)
    report = verify_labels(shards, folder)
    assert report.labelled == 2 and len(report.problems) == 1
    assert str(ledger) in report.problems[0].what and "label run" in report.problems[0].remedy


def test_unlabelled_and_foreign_shards(shards, folder: Path) -> None:
    (folder / "tiny-00002.ledger").unlink()
    for suffix in ("tar", "ledger"):
        (folder / f"other.{suffix}").write_bytes((folder / f"tiny-00000.{suffix}").read_bytes())
    by_file = {p.file.name: p for p in verify_labels(shards, folder).problems}
    assert set(by_file) == {"other.tar", "tiny-00002.tar"}
    assert "without a ledger" in by_file["tiny-00002.tar"].what
    assert "no shard other.tar" in by_file["other.tar"].what
    (folder / "tiny-00002.tar").unlink()
    texts = [p.what for p in verify_labels(shards, folder).problems]
    assert "the shard has no labels yet" in texts


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda keys: [keys[1], keys[0], *keys[2:]], "order"),
        (lambda keys: keys[:-1], "no line for 1 images, such as '00003'"),
        (lambda keys: [*keys, "zzz"], "1 keys without an image, such as 'zzz'"),
        (lambda keys: [*keys, keys[0]], "twice"),
    ],
)
def test_keys(shards, folder: Path, change, expected: str) -> None:
    rewrite(folder / "tiny-00000.tar", change)
    problems = verify_labels(shards, folder).problems
    assert len(problems) == 1 and expected in problems[0].what
    assert problems[0].file.name == "tiny-00000.tar"


def test_a_label_that_does_not_decode(shards, folder: Path) -> None:
    """The tar is whole; its ledger points one byte too far."""
    tar = folder / "tiny-00002.tar"
    ledger = read_ledger(ledger_path(tar))
    entries = [
        Entry(
            key=key.decode(),
            status=Status.OK,
            offset=int(row["offset"]) + 1,
            size=int(row["size"]),
            meta_offset=int(row["meta_offset"]),
            meta_size=int(row["meta_size"]),
        )
        for key, row in zip(ledger.keys, ledger.rows, strict=True)
    ]
    ledger_path(tar).write_bytes(ledger_bytes(entries, ledger.tar_size, ledger.tar_sha256))
    (problem,) = verify_labels(shards, folder).problems
    assert problem.file == tar and "4 unreadable labels, such as '00008'" in problem.what
    assert verify_labels(shards, folder, decode=0).ok


def test_another_data_set(shards, folder: Path, make_shards, draw_picture) -> None:
    for name in shards.shards:
        (shards.root / name).unlink()
    others = make_shards([draw_picture(i, (200, 300)) for i in range(12)])
    report = verify_labels(others, folder)
    assert not report.ok and report.problems[0].file.name == "manifest.json"


def test_inference__sees_another_answer(shards, folder: Path, make_expert) -> None:
    def brighter(image: np.ndarray) -> np.ndarray:
        label = image.mean(axis=2, dtype=np.float32)
        label[3, 3] += 0.05 * np.ptp(label)
        return label

    report = verify_labels(shards, folder, sample=12, expert=make_expert(brighter))
    assert len(report.problems) == 3 and report.inferred == 12
    assert "does not give again" in report.problems[0].what
    loose = Tolerance(scalar=0.06)
    assert verify_labels(
        shards, folder, sample=12, expert=make_expert(brighter), tolerance=loose
    ).ok
    small = make_expert(lambda image: image[::2, ::2].mean(axis=2, dtype=np.float32))
    report = verify_labels(shards, folder, sample=1, expert=small)
    assert "stored as (20, 30), now (10, 15)" in report.problems[0].what


def test_inference__asks_in_batches_and_names_what_fails(shards, folder, make_expert) -> None:
    def moody(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 5:
            raise RuntimeError("not today")
        return image.mean(axis=2, dtype=np.float32) if image[0, 0, 0] != 9 else np.zeros(3)

    expert = make_expert(moody)
    report = verify_labels(shards, folder, sample=12, expert=expert, batch_size=5)
    assert report.inferred == 12 and [p.file.name for p in report.problems] == [
        "tiny-00001.tar",
        "tiny-00002.tar",
    ]
    assert "1 labels" in report.problems[0].what and "not today" in report.problems[0].what
    assert "'00009' (now a scalar field is (H, W)" in report.problems[1].what
    assert [len(batch) for batch in expert.batches] == [5, 5, *[1] * 5, 2]


def test_confidence_and_counts_are_decoded_too(shards, make_expert, tmp_path: Path) -> None:
    """A ledger that points a byte too far, and an id that is no class, in a sound tar."""
    spec = {"expert": "sure", "dataset_id": shards.dataset_id, "source": "a test"}
    manifest = Manifest.of(CLASSES, **spec)
    folder = claim_store(tmp_path / "sure", manifest)
    for shard in shards.shards:
        with ShardLabelWriter(folder, shard) as writer:
            for key in shards.keys(shard):
                sure = np.full((2, 3), 0.5)
                add_label(writer, manifest, key, np.eye(3, dtype=int), confidence=sure)
            writer.commit()
    assert verify_labels(shards, folder).ok
    shift_confidence(folder / "tiny-00001.tar", 1)
    (problem,) = verify_labels(shards, folder).problems
    assert problem.file.name == "tiny-00001.tar" and "4 unreadable" in problem.what
    shift_confidence(folder / "tiny-00001.tar", 2**20)
    (problem,) = verify_labels(shards, folder).problems
    assert "points beyond its end" in problem.what
    with ShardLabelWriter(folder, "tiny-00001.tar") as writer:
        for key in shards.keys("tiny-00001.tar"):
            encoded = CLASSES.encode(np.zeros((2, 2), np.uint8))
            writer.add(key, replace(encoded, meta={"instances": {"7": 1}}))
        writer.commit(replace=True)
    (problem,) = verify_labels(shards, folder).problems
    assert "class 7" in problem.what


def shift_confidence(tar: Path, by: int) -> None:
    """Rewrite the ledger with the confidences elsewhere."""
    ledger = read_ledger(ledger_path(tar))
    names = [name for name in ROW.names or () if name not in ("status", "message")]
    entries = [
        Entry(key=key.decode(), status=Status.OK, **{n: int(row[n]) for n in names})
        for key, row in zip(ledger.keys, ledger.rows, strict=True)
    ]
    moved = [replace(e, confidence_offset=e.confidence_offset + by) for e in entries]
    ledger_path(tar).write_bytes(ledger_bytes(moved, ledger.tar_size, ledger.tar_sha256))


def test_inference__needs_the_same_expert(shards, folder: Path, make_expert) -> None:
    with pytest.raises(ValueError, match="expert"):
        verify_labels(shards, folder, sample=1)
    other = make_expert(kind=ScalarField("m"))
    (problem,) = verify_labels(shards, folder, sample=2, expert=other).problems
    assert problem.file.name == "manifest.json"


def test_failed_images_are_not_drawn(make_shards, draw_picture, make_expert, tmp_path) -> None:
    shards = make_shards([draw_picture(0, (8, 8)), b"broken", draw_picture(2, (8, 8))])
    folder = label_shards(shards, [make_expert()], tmp_path / "labels")[0].folder
    report = verify_labels(shards, folder, sample=9, expert=make_expert())
    assert report.ok and (report.images, report.decoded, report.inferred) == (3, 2, 2)
