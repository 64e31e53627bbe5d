"""The pipeline: bytes that no timing changes, several experts in one pass, bounds, clean ends."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cliptex.experts.protocol import Prediction
from cliptex.labelling import engine, expert_worker
from cliptex.labelling.engine import label_shards, max_images_in_flight
from cliptex.labelling.expert_worker import is_out_of_memory
from cliptex.labelling.options import LabelOptions, share_of
from cliptex.labels.kinds import ClassMap
from cliptex.labels.manifest import read_manifest
from cliptex.labels.writer import ShardLabelWriter, add_label
from cliptex.shards.images import decode_image

CLASSES = ClassMap(("even", "odd"))


class OutOfMemoryError(RuntimeError):
    """Named as torch's own."""


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def parity(image: np.ndarray) -> np.ndarray:
    return image[:, :, 1] % 2


def slow(image: np.ndarray) -> np.ndarray:
    time.sleep(0.004)
    return image.mean(axis=2, dtype=np.float32)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> object:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def mixed_shards(make_shards, draw_picture):
    """Two shards of images of three shapes, one of them no image."""
    sizes = [(20, 30), (30, 20), (20, 30), (24, 24)]
    images = [draw_picture(i, sizes[i % 4]) for i in range(22)]
    images[9] = b"no image"
    return make_shards(images, per_shard=16)


def test_bytes__are_those_of_predicting_and_storing_one_by_one(
    mixed_shards, make_expert, tmp_path: Path
) -> None:
    expert = make_expert()
    report = label_shards(mixed_shards, [expert], tmp_path / "labels", LabelOptions(batch_size=3))[
        0
    ]
    manifest = read_manifest(report.folder)
    (tmp_path / "plain").mkdir()
    for shard in mixed_shards.shards:
        size = mixed_shards.index(shard).size
        with ShardLabelWriter(tmp_path / "plain", shard, image_size=size) as writer:
            for key in mixed_shards.keys(shard):
                try:
                    image = decode_image(mixed_shards.read(shard, key).image)
                except ValueError as error:
                    writer.fail(key, expert_worker.Status.DECODE_ERROR, str(error))
                    continue
                add_label(writer, manifest, key, expert.label(image))
            writer.commit()
    stored = tree(report.folder)
    del stored["manifest.json"]
    assert stored == tree(tmp_path / "plain")


def test_several_experts__each_as_alone_and_every_image_decoded_once(
    mixed_shards, make_expert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def experts() -> list:
        return [
            make_expert(slow, name="slow"),
            make_expert(parity, CLASSES, "parity"),
            make_expert(lambda image: image[:, :, 2] / 7, name="third"),
        ]

    for expert in experts():
        label_shards(mixed_shards, [expert], tmp_path / "alone", LabelOptions(batch_size=2))
    decoded: Counter[bytes] = Counter()

    def counting(data: bytes) -> np.ndarray:
        decoded[data] += 1
        return decode_image(data)

    monkeypatch.setattr(engine, "decode_image", counting)
    reports = label_shards(mixed_shards, experts(), tmp_path / "labels", LabelOptions(batch_size=2))
    assert [report.folder.name for report in reports] == ["slow", "parity", "third"]
    assert all(report.statuses == {"ok": 21, "decode-error": 1} for report in reports)
    assert set(decoded.values()) == {1} and len(decoded) == 22
    assert tree(tmp_path / "labels") == tree(tmp_path / "alone")


def test_several_experts__what_one_has_done_is_skipped_for_it_alone(
    shards, make_expert, tmp_path: Path
) -> None:
    first, second = make_expert(), make_expert(parity, CLASSES, "parity")
    label_shards(shards, [first, second], tmp_path / "labels")
    (tmp_path / "labels" / "numpy" / "tiny-00001.ledger").unlink()
    before = tree(tmp_path / "labels" / "parity")
    first.batches.clear()
    second.batches.clear()
    done, skipped = label_shards(shards, [first, second], tmp_path / "labels")
    assert (done.shards_done, done.shards_skipped, done.images) == (1, 2, 4)
    assert (skipped.shards_done, skipped.shards_skipped, skipped.images) == (0, 3, 0)
    assert len(first.batches) == 1 and not second.batches
    assert tree(tmp_path / "labels" / "parity") == before


def test_experts_of_one_name_and_none_at_all_are_refused(
    shards, make_expert, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="share a folder: numpy"):
        label_shards(shards, [make_expert(), make_expert()], tmp_path / "labels")
    with pytest.raises(ValueError, match="no expert"):
        label_shards(shards, [], tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_memory__is_bounded_in_images(
    make_shards,
    draw_picture,
    make_expert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
) -> None:
    """A decoder counts images in; the writers of a fast and a slow expert count them out."""
    shards = make_shards([draw_picture(i, (20 + i % 3, 30)) for i in range(60)], per_shard=25)
    lock, held, peak = threading.Lock(), Counter(), 0
    add = ShardLabelWriter.add

    def counting_decode(data: bytes) -> np.ndarray:
        nonlocal peak
        with lock:
            held["images"] += 1
            peak = max(peak, held["images"])
        return decode_image(data)

    def counting_add(writer, key, label, *rest) -> None:
        add(writer, key, label, *rest)
        if writer._tar.parent.name == "slow":
            with lock:
                held["images"] -= 1

    monkeypatch.setattr(engine, "decode_image", counting_decode)
    monkeypatch.setattr(ShardLabelWriter, "add", counting_add)
    experts = [make_expert(parity, CLASSES, "fast"), make_expert(slow, name="slow")]
    label_shards(shards, experts, tmp_path / "labels", LabelOptions(batch_size=batch_size))
    bound = max_images_in_flight(batch_size)
    assert bound == 8 * batch_size < 25
    assert batch_size < peak <= bound and held["images"] == 0


def test_memory__large_images_close_windows_and_the_door(
    shards, make_expert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for less than one image's bytes: slower, but no deadlock, and nothing lost."""
    monkeypatch.setattr(engine, "MAX_WINDOW_BYTES", 100)
    expert = make_expert()
    report = label_shards(shards, [expert], tmp_path / "labels", LabelOptions(batch_size=8))[0]
    assert report.statuses == {"ok": 12}
    assert {len(batch) for batch in expert.batches} == {1}


def test_out_of_memory__halves_the_batch_for_the_rest_and_says_so_once(
    make_shards, draw_picture, make_expert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_shards([draw_picture(i, (8, 8)) for i in range(24)], per_shard=12)
    said: list[str] = []
    monkeypatch.setattr(expert_worker, "say", said.append)
    whole = label_shards(shards, [make_expert()], tmp_path / "whole", LabelOptions(batch_size=8))[0]
    small = make_expert()
    tried: list[int] = []

    def predict(images: list[np.ndarray]) -> list[Prediction]:
        tried.append(len(images))
        if len(images) > 2:
            raise OutOfMemoryError("no room")
        return [Prediction(small.label(image)) for image in images]

    small.predict = predict
    report = label_shards(shards, [small], tmp_path / "labels", LabelOptions(batch_size=8))[0]
    assert tried == [8, 4] + [2] * 12
    assert report.statuses == {"ok": 24}
    assert len(said) == 1 and "8 images" in said[0]
    assert tree(report.folder) == tree(whole.folder)


def test_is_out_of_memory() -> None:
    onnx = "[ONNXRuntimeError] : 6 : BFCArena: Failed to allocate memory for requested buffer"
    for error in (MemoryError(), OutOfMemoryError(), RuntimeError(onnx), RuntimeError("bad_alloc")):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_too_few_answers__are_the_experts_error(shards, make_expert, tmp_path: Path) -> None:
    lazy = make_expert()
    lazy.predict = lambda images: [Prediction(lazy.label(images[0]))]
    assert label_shards(shards, [lazy], tmp_path / "labels")[0].statuses == {"ok": 12}
    lazy.predict = lambda images: []
    report = label_shards(shards, [lazy], tmp_path / "none")[0]
    assert report.statuses == {"expert-error": 12}


def test_a_hopeless_expert__stops_the_others_and_the_next_run_completes(
    make_shards, draw_picture, make_expert, tmp_path: Path
) -> None:
    def broken(image: np.ndarray) -> np.ndarray:
        raise RuntimeError("no device")

    shards = make_shards([draw_picture(i, (8, 8)) for i in range(40)], per_shard=20)
    alone = label_shards(shards, [make_expert()], tmp_path / "alone")[0]
    both = [make_expert(), make_expert(broken, name="broken")]
    with pytest.raises(RuntimeError, match="broken failed on each of the first 16"):
        label_shards(shards, both, tmp_path / "labels", LabelOptions(batch_size=4))
    left = tree(tmp_path / "labels")
    assert {Path(name).suffix for name in left} <= {".json", ".tar", ".ledger"}
    assert [name for name in left if name.startswith("broken")] == ["broken/manifest.json"]
    repaired = [make_expert(), make_expert(name="broken")]
    label_shards(shards, repaired, tmp_path / "labels", LabelOptions(batch_size=4))
    assert tree(tmp_path / "labels" / "numpy") == tree(alone.folder)


@pytest.mark.parametrize("call", ["add", "commit"])
def test_full_disk_of_one_writer__leaves_nothing_half_made(
    shards, make_expert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def experts() -> list:
        return [make_expert(), make_expert(slow, name="slow")]

    label_shards(shards, experts(), tmp_path / "sound")
    real = getattr(ShardLabelWriter, call)

    def full(writer, *args, **options) -> None:
        if writer._tar.name == "tiny-00001.tar" and writer._tar.parent.name == "numpy":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(writer, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ShardLabelWriter, call, full)
        with pytest.raises(OSError, match="(?i)no space left"):
            label_shards(shards, experts(), tmp_path / "labels")
    left = tree(tmp_path / "labels")
    assert "numpy/tiny-00000.ledger" in left and "numpy/tiny-00001.tar" not in left
    assert {Path(name).suffix for name in left} <= {".json", ".tar", ".ledger"}
    label_shards(shards, experts(), tmp_path / "labels")
    assert tree(tmp_path / "labels") == tree(tmp_path / "sound")


def test_a_shard_changed_under_the_run__ends_it_after_the_shards_before(
    shards, make_expert, tmp_path: Path
) -> None:
    path = shards.root / shards.shards[1]
    path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(ValueError, match="changed since it was indexed"):
        label_shards(shards, [make_expert(), make_expert(name="two")], tmp_path / "labels")
    left = tree(tmp_path / "labels")
    assert {"numpy/tiny-00000.ledger", "two/manifest.json"} <= left.keys()
    assert not [name for name in left if "00001" in name or "00002" in name]


def test_decoding_writing_and_predicting_overlap(shards, make_expert, tmp_path: Path) -> None:
    """Two experts that wait for each other can only end in one pass of parallel threads."""
    meet = threading.Barrier(2, timeout=20)

    def together(image: np.ndarray) -> np.ndarray:
        meet.wait()
        return np.ones((4, 4))

    experts = [make_expert(together, name="a"), make_expert(together, name="b")]
    reports = label_shards(shards, experts, tmp_path / "labels", LabelOptions(batch_size=2))
    assert [report.statuses for report in reports] == [{"ok": 12}] * 2


def test_rank_and_world_size__share_one_store(shards, make_expert, tmp_path: Path) -> None:
    whole = label_shards(shards, [make_expert()], tmp_path / "whole")[0]
    reports = [
        label_shards(
            shards, [make_expert()], tmp_path / "labels", only=share_of(shards.shards, rank, 2)
        )[0]
        for rank in range(2)
    ]
    assert [(r.shards_done, r.shards_skipped, r.images) for r in reports] == [(2, 0, 8), (1, 0, 4)]
    assert tree(tmp_path / "labels" / "numpy") == tree(whole.folder)
