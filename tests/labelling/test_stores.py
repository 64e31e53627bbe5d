"""A data set that changes beside its labels, and who may label which shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from cliptex.files import remove_abandoned
from cliptex.labelling.adopt import ClassPng, adopt_labels
from cliptex.labelling.engine import label_shards
from cliptex.labelling.stores import (
    DAMAGED,
    belongs,
    claim_shard,
    describe_status,
    label_status,
    record_damage,
    recorded_damage,
)
from cliptex.labelling.verify import verify_labels
from cliptex.labels.codecs import png_bytes
from cliptex.shards.dataset import ImageTextShards

IDS = np.array([[0, 1], [1, 0]], np.uint8)


def opened(shards: ImageTextShards) -> ImageTextShards:
    """The data as they are now, without what is damaged."""
    return ImageTextShards(shards.root, cache=shards.cache, on_damaged="leave out")


def cut(shards: ImageTextShards, number: int) -> bytes:
    """Leave the first 1000 bytes of a shard; returns all of them."""
    path = Path(str(shards.root)) / shards.shards[number]
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    return content


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_damage_before_labelling(shards, make_expert, tmp_path: Path) -> None:
    sound = label_shards(shards, [make_expert()], tmp_path / "sound")[0]
    content = cut(shards, 1)
    data, out = opened(shards), tmp_path / "labels"
    store = label_shards(data, [make_expert()], out)[0].folder
    reason = data.damaged["tiny-00001.tar"]
    assert "damaged after byte" in reason and recorded_damage(store) == {"tiny-00001.tar": reason}
    text = describe_status(label_status(data, out))
    assert f"damaged shard tiny-00001.tar: {reason}" in text and "2 of 2 shards" in text
    assert "another data set" not in text
    report = verify_labels(data, store)
    assert [problem.what for problem in report.problems] == [f"damaged: {reason}"]
    assert report.problems[0].file == data.root / "tiny-00001.tar"

    (data.root / "tiny-00001.tar").write_bytes(content)
    repaired = opened(shards)
    text = describe_status(label_status(repaired, out))
    assert "damaged" not in text and "2 of 3 shards" in text and "another data set" not in text
    label_shards(repaired, [make_expert()], out)
    assert tree(store) == tree(sound.folder), "nothing is left of it"


def test_damage_after_labelling(shards, make_expert, tmp_path: Path) -> None:
    store = label_shards(shards, [make_expert()], tmp_path / "labels")[0].folder
    cut(shards, 2)
    data = opened(shards)
    text = describe_status(label_status(data, tmp_path / "labels"))
    assert "damaged shard tiny-00002.tar" in text and "another data set" not in text
    report = verify_labels(data, store)
    assert [problem.file.name for problem in report.problems] == ["tiny-00002.tar"]
    assert report.problems[0].file.parent == data.root, "the images are wrong, not the labels"


def test_belongs__not_to_other_images(
    shards, make_shards, draw_picture, make_expert, tmp_path: Path
) -> None:
    store = label_shards(shards, [make_expert()], tmp_path / "labels")[0].folder
    assert belongs(store, shards)
    for tar in shards.root.glob("*.tar"):
        tar.unlink()
    others = make_shards([draw_picture(i, (200, 310)) for i in range(12)])
    cut(others, 0)
    assert not belongs(store, opened(others)), "damage excuses the damaged shard alone"
    (status,) = label_status(opened(others), tmp_path / "labels")
    assert status.other_data


def test_adopt__goes_on_when_a_shard_is_repaired(shards, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(12):
        (source / f"{number:05d}.png").write_bytes(png_bytes(IDS))
    content = cut(shards, 0)

    def adopt(data: ImageTextShards) -> Path:
        form = ClassPng(classes=("a", "b"))
        report = adopt_labels(data, source, tmp_path / "out", form, name="m", origin="by hand")
        return Path(str(report.folder))

    store = adopt(opened(shards))
    assert list(recorded_damage(store)) == ["tiny-00000.tar"]
    (shards.root / "tiny-00000.tar").write_bytes(content)
    assert adopt(opened(shards)) == store
    assert recorded_damage(store) == {} and len(list(store.glob("*.ledger"))) == 3


def test_record__remote_and_unreadable(shards, memory: UPath) -> None:
    cut(shards, 0)
    record_damage(memory, opened(shards))
    assert list(recorded_damage(memory)) == ["tiny-00000.tar"]
    (memory / DAMAGED).write_bytes(b"{")
    with pytest.raises(ValueError, match="no JSON object; remove it"):
        recorded_damage(memory)


def test_claim_shard__one_owner_at_a_time(tmp_path: Path) -> None:
    first = claim_shard(tmp_path, "deep/a.tar")
    assert first is not None
    assert claim_shard(tmp_path, "deep/a.tar") is None
    with_other = claim_shard(tmp_path, "deep/b.tar")
    assert with_other is not None
    assert remove_abandoned(tmp_path) == 0, "a living owner's file stays"
    first.release()
    first.release()
    with_other.release()
    with claim_shard(tmp_path, "deep/a.tar") as again:  # pyright: ignore[reportOptionalContextManager]
        assert again is not None
        assert claim_shard(tmp_path, "deep/a.tar") is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_claim_shard__of_a_dead_owner_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".a.tar.lock.cliptex-tmp").write_bytes(b"")
    lock = claim_shard(tmp_path, "a.tar")
    assert lock is not None
    lock.release()
    (tmp_path / ".a.tar.lock.cliptex-tmp").write_bytes(b"")
    assert remove_abandoned(tmp_path) == 1
