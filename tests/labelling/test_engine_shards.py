"""Which shards the engine takes, on which replicas, and what it stores beside the label."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from cliptex.experts.load import ReplicatedExpert
from cliptex.experts.protocol import Prediction
from cliptex.labelling.engine import label_shards
from cliptex.labelling.options import LabelOptions, share_of
from cliptex.labelling.stores import claim_shard
from cliptex.labels.kinds import ClassMap
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import is_committed


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_only__some_shards_or_a_share_of_them(shards, make_expert, tmp_path: Path) -> None:
    first, second, third = shards.shards
    report = label_shards(shards, [make_expert()], tmp_path / "a", only=[third, first])[0]
    assert (report.shards_done, report.shards_skipped, report.images) == (2, 0, 8)
    assert not is_committed(report.folder, second)
    report = label_shards(
        shards, [make_expert()], tmp_path / "b", only=share_of((first, third), 1, 2)
    )[0]
    assert report.shards_done == 1 and is_committed(report.folder, third)
    assert label_shards(shards, [make_expert()], tmp_path / "c", only=[])[0].shards_done == 0
    with pytest.raises(ValueError, match="has no shard else.tar: .*relative"):
        label_shards(shards, [make_expert()], tmp_path / "d", only=["else.tar", first])
    assert not (tmp_path / "d").exists()


def test_confidence_and_counts__are_stored_where_the_spec_explains_them(
    shards, make_expert, tmp_path: Path
) -> None:
    def predict(images: list[np.ndarray]) -> list[Prediction]:
        return [
            Prediction(
                np.zeros((8, 8), np.uint8),
                confidence=np.full((4, 4), image[0, 0, 0] / 12),
                instances={1: int(image[0, 0, 0])},
            )
            for image in images
        ]

    for name, meaning in (("sure", "a share"), ("unsaid", "")):
        expert = make_expert(kind=ClassMap(("background", "cat")), name=name)
        expert.confidence, expert.predict = meaning, predict
        report = label_shards(shards, [expert], tmp_path / "labels")[0]
        assert report.statuses == {"ok": 12}
        reader = LabelReader(report.folder)
        assert reader.manifest.confidence == meaning
        stored = reader.read(*shards.locate(3), confidence=True)
        assert stored is not None and stored.instances == {1: 3}
        if meaning:
            assert stored.confidence is not None
            assert np.allclose(stored.confidence, 0.25, atol=0.01)
        else:
            assert stored.confidence is None


def test_replicas__overlap_and_change_no_byte(shards, make_expert, tmp_path: Path) -> None:
    """Each replica waits for the other, so one alone would never end; order and bytes stay."""
    alone = label_shards(shards, [make_expert()], tmp_path / "alone", LabelOptions(batch_size=2))[0]
    meet = threading.Barrier(2, timeout=20)

    def together(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] % 2 == 0:  # one of each batch of two
            meet.wait()
        return image.mean(axis=2, dtype=np.float32)

    replicas = [make_expert(together) for _ in range(2)]
    expert = ReplicatedExpert(replicas)
    report = label_shards(shards, [expert], tmp_path / "labels", LabelOptions(batch_size=2))[0]
    assert tree(report.folder) == tree(alone.folder)
    assert [len(replica.batches) for replica in replicas] == [3, 3]


def test_a_shard_that_another_run_is_labelling__is_left_to_it(
    shards, make_expert, tmp_path: Path
) -> None:
    """It is passed over, then waited for: here its owner gives up, and the run labels it last."""
    expert, first = make_expert(), shards.shards[0]
    whole = label_shards(shards, [make_expert()], tmp_path / "whole")[0]
    lock = claim_shard(tmp_path / "labels" / "numpy", first)
    assert lock is not None
    order: list[int] = []

    def noting(image: np.ndarray) -> np.ndarray:
        order.append(int(image[0, 0, 0]))
        if len(order) == 8:
            lock.release()
        return image.mean(axis=2, dtype=np.float32)

    expert.label = noting
    report = label_shards(shards, [expert], tmp_path / "labels", LabelOptions(batch_size=4))[0]
    assert order == [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3] and report.shards_done == 3
    assert tree(report.folder) == tree(whole.folder)
