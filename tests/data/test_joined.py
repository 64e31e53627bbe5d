from __future__ import annotations

import numpy as np
import pytest
import torch

from cliptex.data import joined
from cliptex.data.joined import Batch, JoinedDataset, load_batches
from cliptex.data.pictures import ByteBudgetCache
from cliptex.data.sampler import Sampler
from cliptex.data.transforms import Augmentation
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.labels.writer import label_tar

SIZE = (24, 32)
CLASSES = ClassMap(("background", "left", "right"))
DEPTH = ScalarField("1/m")
NORMALS = UnitVector()
STILL = Augmentation(scale=(1.0, 1.0), ratio=(4 / 3, 4 / 3))


def images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture
def pictures(encode):
    return [(encode(image), f"thing {i}") for i, image in enumerate(images(10))]


@pytest.fixture
def labels():
    """Labels of samples 000 to 005 and 007 to 009, smaller than the image."""
    rng = np.random.default_rng(1)
    keys = [f"{i:03d}" for i in range(10) if i != 6]
    normals = rng.normal(size=(10, 12, 16, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    depth = rng.uniform(0.1, 2.0, (10, 12, 16)).astype(np.float32)
    depth[:, :2] = np.nan
    return {
        "segmentation": (CLASSES, {k: rng.integers(0, 3, (12, 16), np.uint8) for k in keys}),
        "depth": (DEPTH, {k: depth[int(k)] for k in keys}),
        "normals": (NORMALS, {k: normals[int(k)].astype(np.float32) for k in keys}),
    }


@pytest.fixture
def dataset(write_shards, write_labels, pictures, labels):
    shards = write_shards(pictures)
    readers = {
        task: write_labels(shards, task, kind, arrays) for task, (kind, arrays) in labels.items()
    }

    def make(augmentation: Augmentation = STILL, tasks=tuple(labels), budget: int = 0):
        return JoinedDataset(
            shards=shards,
            labels={task: readers[task] for task in tasks},
            augmentation=augmentation,
            seed=5,
            cache=ByteBudgetCache(budget),
        )

    return make


def sampler(**changes) -> Sampler:
    return Sampler(**{"total": 10, "batch_size": 10, "seed": 5, "sizes": (SIZE,)} | changes)


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.images, b.images)
        and (a.captions, a.names) == (b.captions, b.names)
        and a.targets.keys() == b.targets.keys()
        and all(
            torch.equal(getattr(a.targets[task], field), getattr(b.targets[task], field))
            for task in a.targets
            for field in ("target", "valid", "present")
        )
    )


def test_images_and_captions_arrive_as_stored(dataset) -> None:
    batch = dataset().batch(sampler(), 0)
    order = sampler().batch_at(0).indices
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (10, 3, *SIZE)
    for row, index in enumerate(order):
        assert np.array_equal(batch.images[row].permute(1, 2, 0).numpy(), images(10)[index])
        assert batch.captions[row] == f"thing {index}"
        assert batch.names[row].endswith(f":{index:03d}")


def test_labels_arrive_with_their_images(dataset, labels) -> None:
    batch = dataset().batch(sampler(), 0)
    kind, arrays = labels["segmentation"]
    for row, index in enumerate(sampler().batch_at(0).indices):
        if index != 6:
            expected = kind.resize(arrays[f"{index:03d}"], SIZE)
            assert np.array_equal(batch.targets["segmentation"].target[row].numpy(), expected)


def test_a_missing_label_is_said_and_is_valid_nowhere(dataset) -> None:
    batch = dataset().batch(sampler(), 0)
    missing = sampler().batch_at(0).indices.index(6)
    for targets in batch.targets.values():
        assert targets.present.tolist() == [row != missing for row in range(10)]
        assert not targets.valid[missing].any()
        assert targets.valid[1 - missing if missing < 2 else 0].any()
        assert torch.isfinite(targets.target).all()


def test_depth_is_normalised_by_the_statistics_of_the_whole_image(dataset, labels) -> None:
    cropped = Augmentation(scale=(0.3, 0.3))
    batch = dataset(cropped).batch(sampler(), 0)
    whole = dataset().batch(sampler(), 0)
    targets = whole.targets["depth"]
    assert targets.target.shape == (10, 1, *SIZE)
    for row, index in enumerate(sampler().batch_at(0).indices):
        if index == 6:
            continue
        truth = labels["depth"][1][f"{index:03d}"]
        valid = truth[np.isfinite(truth)]
        median = np.median(valid)
        spread = np.abs(valid - median).mean()
        limits = (valid.min() - median) / spread - 1e-2, (valid.max() - median) / spread + 1e-2
        seen = batch.targets["depth"].target[row, 0][batch.targets["depth"].valid[row]]
        assert limits[0] <= seen.min() and seen.max() <= limits[1]
        expected = (DEPTH.resize(truth, SIZE) - median) / spread
        ok = np.isfinite(expected)
        assert np.array_equal(targets.valid[row].numpy(), ok)
        assert np.allclose(targets.target[row, 0].numpy()[ok], expected[ok], atol=3e-3)


def test_normals_are_unit_vectors_and_mirror_with_the_image(dataset) -> None:
    straight = dataset().batch(sampler(), 0)
    mirrored = dataset(Augmentation(scale=(1, 1), ratio=(4 / 3, 4 / 3), flip=1.0)).batch(
        sampler(), 0
    )
    a, b = straight.targets["normals"], mirrored.targets["normals"]
    lengths = torch.linalg.vector_norm(a.target, dim=1)
    assert torch.allclose(lengths[a.valid], torch.ones(()), atol=1e-5)
    assert torch.equal(mirrored.images, straight.images.flip(-1))
    assert torch.allclose(b.target, a.target.flip(-1) * torch.tensor([-1, 1, 1])[:, None, None])


def test_tasks_leave_images_captions_and_order_alone(dataset) -> None:
    crops = Augmentation(scale=(0.3, 1.0), flip=0.5)
    with_labels, without = dataset(crops), dataset(crops, tasks=())
    for step in range(3):
        one, other = (d.batch(sampler(), step) for d in (with_labels, without))
        assert torch.equal(one.images, other.images)
        assert one.captions == other.captions
        assert other.targets == {}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_and_cache_change_nothing(dataset, workers: int) -> None:
    crops = Augmentation(scale=(0.3, 1.0), flip=0.5)
    expected = [dataset(crops).batch(sampler(batch_size=4), step) for step in range(2, 9)]
    cached = dataset(crops, budget=20_000)  # room for a part of it
    got = list(load_batches(cached, sampler(batch_size=4), range(2, 9), workers=workers))
    assert len(got) == len(expected)
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))
    assert 0 < cached.cache.used <= 20_000


def test_cached_samples_are_not_read_again(dataset, monkeypatch) -> None:
    cached = dataset(budget=1 << 20)
    first = cached.batch(sampler(), 0)
    monkeypatch.setattr(cached.shards, "read", None)
    assert same(cached.batch(sampler(), 0), first)


def test_one_of_several_captions_is_drawn(write_shards, encode) -> None:
    image = images(1)[0]
    shards = write_shards([(encode(image), "one\ntwo\nthree"), (encode(image), "")])
    dataset = JoinedDataset(shards=shards, labels={}, augmentation=STILL, seed=0)
    captions = [dataset.item(0, position, SIZE).caption for position in range(60)]
    assert all(10 < captions.count(text) < 30 for text in ("one", "two", "three"))
    assert captions == [dataset.item(0, position, SIZE).caption for position in range(60)]
    assert dataset.item(1, 0, SIZE).caption == ""


def test_a_broken_image_is_replaced_by_the_next(write_shards, encode) -> None:
    good = encode(images(1)[0])
    shards = write_shards([(good, "a"), (good[:60], "b"), (good, "c")])
    dataset = JoinedDataset(shards=shards, labels={}, augmentation=STILL, seed=0)
    assert [dataset.item(i, i, SIZE).caption for i in range(3)] == ["a", "c", "c"]


def test_no_readable_image_is_an_error(write_shards, encode) -> None:
    shards = write_shards([(encode(images(1)[0])[:60], "a")])
    dataset = JoinedDataset(shards=shards, labels={}, augmentation=STILL, seed=0)
    with pytest.raises(ValueError, match="none of the 1 images"):
        dataset.item(0, 0, SIZE)


def test_a_failure_in_a_worker_reaches_the_caller(dataset, monkeypatch) -> None:
    broken = dataset()

    def fail(*_):
        raise ValueError("damaged shard")

    monkeypatch.setattr(broken.shards, "read", fail)
    with pytest.raises(ValueError, match="damaged shard"):
        next(load_batches(broken, sampler(), range(3), workers=1))


def test_a_damaged_label_is_missing_and_named_once(dataset, monkeypatch) -> None:
    """Its other labels, its image and the other samples train as before."""
    said: list[str] = []
    monkeypatch.setattr(joined, "say", said.append)
    whole = dataset()
    expected = whole.batch(sampler(), 0)
    reader = whole.labels["depth"]
    shard, _ = whole.shards.locate(3)
    row = reader.ledger(shard).find("003")
    tar = label_tar(reader.folder, shard)
    data = bytearray(tar.read_bytes())
    data[int(reader.ledger(shard).rows["offset"][row]) + 40] ^= 4
    tar.write_bytes(data)
    reader.close()
    damaged = dataset()
    batches = [damaged.batch(sampler(), 0) for _ in range(2)]
    at = sampler().batch_at(0).indices.index(3)
    for batch in batches:
        present = expected.targets["depth"].present.clone()
        present[at] = False
        assert torch.equal(batch.targets["depth"].present, present)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.targets["normals"].target, expected.targets["normals"].target)
    (told,) = said
    assert told.startswith(f"depth: label tar {tar} is damaged: the label of '003' is not what")
    assert "label run" in told and told.endswith("goes on without it (1 damaged so far)")
