"""Stored confidence as the weight of a batch's labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cliptex.data.joined import Batch, JoinedDataset, check_same_images, view_label
from cliptex.data.pictures import ByteBudgetCache
from cliptex.data.sampler import Sampler
from cliptex.data.transforms import Augmentation, View
from cliptex.labels.kinds import Box, ScalarField
from cliptex.labels.reader import StoredLabel
from cliptex.tasks import TASKS

SIZE = (24, 32)
DEPTH = ScalarField("1/m")
STILL = Augmentation(scale=(1.0, 1.0), ratio=(4 / 3, 4 / 3))
LEFT = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)  # the left half is certain


@pytest.fixture
def shards(write_shards, encode):
    rng = np.random.default_rng(0)
    return write_shards(
        [(encode(rng.integers(0, 256, (*SIZE, 3), np.uint8)), "") for _ in range(4)]
    )


@pytest.fixture
def reader(shards, write_reliable):
    rng = np.random.default_rng(1)
    arrays = {f"{i:03d}": rng.uniform(0.1, 2, (12, 16)).astype(np.float32) for i in range(4)}
    # 000 and 001 know their confidence, the others do not
    confidence = {"000": LEFT, "001": np.full((3, 4), 0.5, np.float32)}
    return write_reliable(shards, "depth", DEPTH, arrays, confidence)


def batch(shards, reader, *, confidence=("depth",), augmentation=STILL, cache=0):
    data = JoinedDataset(
        shards=shards,
        labels={"depth": reader},
        augmentation=augmentation,
        seed=5,
        confidence=frozenset(confidence),
        cache=ByteBudgetCache(cache),
    )
    sampler = Sampler(total=4, batch_size=4, seed=5, sizes=(SIZE,))
    return data, sampler, data.batch(sampler, 0)


def weight_of(found: Batch) -> torch.Tensor:
    weight = found.targets["depth"].weight
    assert weight is not None
    return weight


def row(found, key: str) -> int:
    return [name.rpartition(":")[2] for name in found.names].index(key)


def test_confidence_becomes_the_weight(shards, reader) -> None:
    _, _, found = batch(shards, reader)
    weight = found.targets["depth"].weight
    assert weight is not None and weight.shape == (4, *SIZE) and weight.dtype == torch.float32
    assert weight[row(found, "001")].unique().tolist() == pytest.approx([128 / 255])  # in 8 bits
    assert (weight[row(found, "002")] == 1).all()  # a label without confidence counts fully
    halves = weight[row(found, "000")]
    assert (halves[:, :8] == 1).all() and (halves[:, 24:] == 0).all()
    # between the two cells' centres, at columns 8 and 24, the weight falls on a straight line
    assert halves[0, 8:24].tolist() == pytest.approx([(23.5 - x) / 16 for x in range(8, 24)])


def test_without_asking_there_is_no_weight(shards, reader) -> None:
    _, _, found = batch(shards, reader, confidence=())
    assert found.targets["depth"].weight is None


def test_the_weight_is_mirrored_with_its_label(shards, reader) -> None:
    _, _, straight = batch(shards, reader)
    flipped = Augmentation(scale=(1.0, 1.0), ratio=(4 / 3, 4 / 3), flip=1.0)
    _, _, mirrored = batch(shards, reader, augmentation=flipped)
    a, b = weight_of(straight), weight_of(mirrored)
    assert torch.allclose(a.flip(-1), b)


def test_a_crop_sees_its_own_part_of_the_confidence() -> None:
    label = StoredLabel(np.ones((8, 8), np.float32), 0.0, 1.0, LEFT)
    left, right = (
        view_label(label, DEPTH, View(Box(left=a, right=a + 0.25), flip=False), (4, 4)).confidence
        for a in (0.0, 0.75)
    )
    assert (left == 1).all() and (right == 0).all()


def test_the_loss_reads_the_weight(shards, reader) -> None:
    data, sampler, found = batch(shards, reader)
    alone = found.targets["depth"]
    prediction = torch.zeros(4, 1, 3, 4)
    weight = weight_of(found)
    expected = (weight * alone.target[:, 0].abs()).sum() / weight.sum()
    assert TASKS["depth"].loss(prediction, alone).item() == pytest.approx(expected.item())


def test_the_cache_keeps_confidence(shards, reader, monkeypatch) -> None:
    data, sampler, first = batch(shards, reader, cache=1 << 20)
    monkeypatch.setattr(type(reader), "read", None)
    again = data.batch(sampler, 0)
    assert torch.equal(weight_of(again), weight_of(first))


def test_labels_of_other_images_are_refused(write_shards, encode, reader, tmp_path) -> None:
    from cliptex.shards.dataset import ImageTextShards
    from cliptex.shards.write import ShardWriter

    with ShardWriter(tmp_path / "other", prefix="other") as writer:
        writer.add("a", encode(np.zeros((4, 4, 3), np.uint8)), "png", "")
    with pytest.raises(ValueError, match="belong to the data set"):
        check_same_images(reader, ImageTextShards(tmp_path / "other"))
