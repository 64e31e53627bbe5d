"""The engine: whole shards or nothing, failures cost one line, runs go on where they stopped."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cliptex.labelling import engine
from cliptex.labelling.engine import label_shards
from cliptex.labelling.options import LabelOptions
from cliptex.labelling.stores import find_failures
from cliptex.labels.kinds import ClassMap, UnitVector
from cliptex.labels.ledger import Status
from cliptex.labels.reader import LabelReader
from cliptex.shards.dataset import ImageTextShards


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_label_shards__labels_everything_once(shards, make_expert, tmp_path: Path) -> None:
    expert = make_expert()
    report = label_shards(shards, [expert], tmp_path / "labels", LabelOptions(batch_size=3))[0]
    assert (report.shards_done, report.images, report.statuses) == (3, 12, {"ok": 12})
    assert report.folder == tmp_path / "labels" / "numpy"
    reader = LabelReader(report.folder)
    assert reader.coverage(shards) == 1
    stored = reader.read(*shards.locate(7))
    assert stored is not None and stored.array.shape == (20, 30)
    assert stored.array[0, 0] == pytest.approx(7 / 3, abs=2e-2), "joined to its own image"
    before = tree(tmp_path / "labels")
    again = label_shards(shards, [expert], tmp_path / "labels", LabelOptions(batch_size=3))[0]
    assert (again.shards_done, again.shards_skipped, again.images) == (0, 3, 0)
    assert tree(tmp_path / "labels") == before


def test_batches__hold_one_size_and_never_cross_shards(
    make_shards, draw_picture, make_expert, tmp_path: Path
) -> None:
    sizes = [(8, 8), (8, 9), (8, 8), (8, 8), (8, 9), (8, 8)]
    shards = make_shards([draw_picture(i, size) for i, size in enumerate(sizes)], per_shard=5)
    expert = make_expert()
    label_shards(shards, [expert], tmp_path / "labels", LabelOptions(batch_size=2))
    square, wide = (8, 8, 3), (8, 9, 3)
    assert expert.batches == [[square, square], [wide, wide], [square], [square]]
    reader = LabelReader(tmp_path / "labels" / "numpy")
    for i in range(6):
        stored = reader.read(*shards.locate(i))
        assert stored is not None and stored.array.shape == sizes[i]
        assert stored.array[0, 0] == pytest.approx(i / 3, abs=2e-2)


def test_labels_larger_than_the_limit(shards, make_expert, tmp_path: Path) -> None:
    report = label_shards(shards, [make_expert()], tmp_path / "labels", LabelOptions(max_side=15))[
        0
    ]
    stored = LabelReader(report.folder).read(*shards.locate(0))
    assert stored is not None and stored.array.shape == (10, 15)


def test_failures__cost_one_line_each(
    make_shards, draw_picture, make_expert, tmp_path: Path
) -> None:
    images = [draw_picture(i, (8, 8)) for i in range(8)]
    images[1] = b""
    images[2] = images[2][:40]
    images[3] = b"no image at all"

    def label(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 5:
            raise RuntimeError("cannot see five")
        if image[0, 0, 0] == 6:
            return np.full((8, 8), np.nan)
        if image[0, 0, 0] == 7:
            return np.zeros((8, 8, 2))
        return np.ones((8, 8))

    shards = make_shards(images, per_shard=8)
    report = label_shards(shards, [make_expert(label)], tmp_path / "labels")[0]
    assert report.statuses == {
        "ok": 2,
        "decode-error": 3,
        "expert-error": 1,
        "bad-label": 1,
        "no-valid-pixel": 1,
    }
    failures = {key: (s, text) for _, key, s, text in LabelReader(report.folder).failures()}
    assert failures["00001"][1].startswith("empty")
    assert failures["00003"][1].startswith("unknown-format")
    assert failures["00005"] == (Status.EXPERT_ERROR, "RuntimeError: cannot see five")
    assert failures["00007"][0] == Status.BAD_LABEL


def test_retry_failed__labels_only_shards_with_failures_of_the_expert(
    shards, make_expert, tmp_path: Path
) -> None:
    def moody(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 5:
            raise MemoryError
        return np.zeros((8, 8, 2)) if image[0, 0, 0] == 9 else np.ones((8, 8))

    label_shards(shards, [make_expert(moody)], tmp_path / "labels", only=shards.shards[1:])
    good = make_expert(lambda image: np.ones((8, 8)))
    sound = label_shards(shards, [good], tmp_path / "sound", only=shards.shards[1:])[0]
    failures = find_failures(shards, tmp_path / "labels", "numpy")
    assert failures.shards == {"tiny-00001.tar": 1, "tiny-00002.tar": 1}
    assert "failed on 2 images in 2 shards, which are labelled anew (8 images)" in str(failures)
    report = label_shards(shards, [good], tmp_path / "labels", retry_failed=True)[0]
    assert (report.shards_done, report.shards_skipped, report.statuses) == (2, 1, {"ok": 8})
    assert tree(report.folder) == tree(sound.folder)
    assert "nothing to do" in str(find_failures(shards, tmp_path / "labels", "numpy"))
    (report.folder / "tiny-00002.ledger").unlink()
    failures = find_failures(shards, tmp_path / "labels", "numpy")
    assert failures.due == ("tiny-00002.tar",) and "1 more were left unfinished" in str(failures)
    report = label_shards(shards, [good], tmp_path / "labels", retry_failed=True)[0]
    assert report.shards_done == 1 and tree(report.folder) == tree(sound.folder)
    again = label_shards(shards, [good], tmp_path / "labels", retry_failed=True)[0]
    assert again.shards_done == 0, "what has no labels at all is not retried"
    with pytest.raises(FileNotFoundError, match="absent"):
        find_failures(shards, tmp_path / "labels", "absent")


def test_an_expert_that_always_fails_stops_the_run(
    make_shards, draw_picture, make_expert, tmp_path: Path
) -> None:
    def broken(image: np.ndarray) -> np.ndarray:
        raise RuntimeError("no device")

    shards = make_shards([draw_picture(i, (8, 8)) for i in range(20)], per_shard=20)
    with pytest.raises(RuntimeError, match="on each of the first 16"):
        label_shards(shards, [make_expert(broken)], tmp_path / "labels", LabelOptions(batch_size=4))
    assert list(tree(tmp_path / "labels")) == ["numpy/manifest.json"]


def test_a_truncated_image_shard_is_labelled_as_far_as_it_is_whole(
    shards, make_expert, tmp_path: Path
) -> None:
    path = shards.root / shards.shards[0]
    path.write_bytes(path.read_bytes()[:3000])
    cut = ImageTextShards(shards.root, cache=tmp_path / "cache", on_damaged="keep")
    assert 0 < len(cut) < 12
    report = label_shards(cut, [make_expert()], tmp_path / "labels")[0]
    assert report.statuses == {"ok": len(cut)}


def test_labels_of_another_expert_are_refused(shards, make_expert, tmp_path: Path) -> None:
    label_shards(shards, [make_expert()], tmp_path / "labels")
    other = make_expert(kind=UnitVector())
    with pytest.raises(ValueError, match="fields differ"):
        label_shards(shards, [other], tmp_path / "labels")
    classes = make_expert(
        lambda image: image[:, :, 0] % 2, kind=ClassMap(("even", "odd")), name="beside"
    )
    label_shards(shards, [classes], tmp_path / "labels")
    assert sorted(p.name for p in (tmp_path / "labels").iterdir()) == ["beside", "numpy"]


def test_full_disk__keeps_what_was_whole_and_goes_on_later(
    shards, make_expert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = label_shards(shards, [make_expert()], tmp_path / "sound")[0]
    real = os.fsync

    def full_at_the_second_shard(descriptor: int) -> None:
        if "tiny-00001.tar" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_at_the_second_shard)
        with pytest.raises(OSError, match="no space left while writing .*tiny-00001"):
            label_shards(shards, [make_expert()], tmp_path / "labels")
    kept = tree(tmp_path / "labels" / "numpy")
    assert sorted(kept) == ["manifest.json", "tiny-00000.ledger", "tiny-00000.tar"]
    label_shards(shards, [make_expert()], tmp_path / "labels")
    assert tree(tmp_path / "labels" / "numpy") == tree(sound.folder)


def test_interrupts__leave_whole_shards_only(shards, make_expert, tmp_path: Path) -> None:
    def interrupted(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 6:
            raise KeyboardInterrupt
        return np.ones((8, 8))

    with pytest.raises(KeyboardInterrupt):
        label_shards(
            shards, [make_expert(interrupted)], tmp_path / "labels", LabelOptions(batch_size=1)
        )
    names = sorted(tree(tmp_path / "labels" / "numpy"))
    assert names == ["manifest.json", "tiny-00000.ledger", "tiny-00000.tar"]


def test_two_runs_on_one_store_do_no_harm(shards, make_expert, tmp_path: Path) -> None:
    alone = label_shards(shards, [make_expert()], tmp_path / "alone")[0]
    start = threading.Barrier(2)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            start.wait()
            label_shards(shards, [make_expert()], tmp_path / "both", LabelOptions(batch_size=1))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert tree(tmp_path / "both" / "numpy") == tree(alone.folder)


def test_bad_numbers_are_refused(shards, make_expert, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="positive"):
        label_shards(shards, [make_expert()], tmp_path, LabelOptions(batch_size=0))


def test_labelling_does_not_import_torch() -> None:
    code = (
        "import sys, cliptex.labelling.engine, cliptex.labelling.view, cliptex.experts.load, "
        "cliptex.labelling.placebo, cliptex.experts.onnx; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert engine.__name__ in sys.modules
