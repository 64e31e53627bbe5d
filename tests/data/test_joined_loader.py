"""Batches ahead of time: the same for any number of workers, ranks and interruptions."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cliptex.data.joined import Batch, JoinedDataset, load_batches
from cliptex.data.pictures import ByteBudgetCache
from cliptex.data.sampler import Sampler
from cliptex.data.transforms import Augmentation
from cliptex.labels.kinds import ScalarField

SIZES = ((48, 48), (32, 32), (64, 64))


def jpeg(number: int, height: int, width: int) -> bytes:
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows % 256, columns % 256, rows * 0 + 10 * number], axis=-1)
    data = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture
def dataset(write_shards, write_labels):
    shards = write_shards([(jpeg(i, 130 + i, 200 - i), f"thing {i}") for i in range(24)])
    rng = np.random.default_rng(0)
    depth = {f"{i:03d}": rng.random((20, 30)).astype(np.float32) for i in range(20)}
    reader = write_labels(shards, "depth", ScalarField("1/m"), depth)

    def make(budget: int = 0) -> JoinedDataset:
        return JoinedDataset(
            shards=shards,
            labels={"depth": reader},
            augmentation=Augmentation(scale=(0.4, 1.0), flip=0.5),
            seed=3,
            cache=ByteBudgetCache(budget),
        )

    return make


def sampler(**changes) -> Sampler:
    base = {"total": 24, "batch_size": 5, "seed": 3, "sizes": SIZES, "shards": (4,) * 6}
    return Sampler(**base | {"window": 8} | changes)


def same(a: Batch, b: Batch) -> bool:
    one, other = a.targets["depth"], b.targets["depth"]
    return (
        torch.equal(a.images, b.images)
        and (a.captions, a.names) == (b.captions, b.names)
        and torch.equal(one.target, other.target)
        and torch.equal(one.valid, other.valid)
        and torch.equal(one.present, other.present)
    )


@pytest.mark.parametrize("budget", [0, 200_000, 1 << 30])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_do_not_depend_on_workers_caches_or_where_one_begins(
    dataset, workers: int, budget: int
) -> None:
    expected = [dataset().batch(sampler(), step) for step in range(3, 12)]
    got = list(load_batches(dataset(budget), sampler(), range(3, 12), workers=workers))
    assert len(got) == 9 and all(map(same, got, expected))
    assert {batch.images.shape[-1] for batch in got} == {32, 48, 64}


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_read_the_global_batch_together(dataset, world: int) -> None:
    # 64 x 64 has 2 samples a step at 48 x 48 with 5: too few for three ranks.
    drawn = sampler(sizes=SIZES[:2])
    whole = list(load_batches(dataset(), drawn, range(4), workers=0))
    parts = [
        list(load_batches(dataset(), drawn, range(4), workers=1, rank=rank, world=world))
        for rank in range(world)
    ]
    for step, batch in enumerate(whole):
        shares = [part[step] for part in parts]
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        assert sum((share.names for share in shares), ()) == batch.names
        target = torch.cat([share.targets["depth"].target for share in shares])
        assert torch.equal(target, batch.targets["depth"].target)


def test_a_run_on_two_ranks_goes_on_with_three(dataset) -> None:
    drawn = sampler(sizes=SIZES[:2])
    names = [n for b in load_batches(dataset(), drawn, range(6), workers=0) for n in b.names]

    def read(steps: range, world: int) -> list[str]:
        ranks = [
            load_batches(dataset(), drawn, steps, workers=1, rank=r, world=world)
            for r in range(world)
        ]
        return [n for shares in zip(*ranks, strict=True) for s in shares for n in s.names]

    assert read(range(0, 3), 2) + read(range(3, 6), 3) == names


def test_too_many_ranks_are_refused_with_the_remedy(dataset) -> None:
    batches = load_batches(dataset(), sampler(), range(9), workers=0, rank=0, world=3)
    with pytest.raises(ValueError, match="choose a larger batch_size"):
        list(batches)


def test_only_a_few_batches_are_kept_ready(dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = JoinedDataset.batch

    def counted(self, sampler, step, **rank):
        made.append(step)
        return original(self, sampler, step, **rank)

    monkeypatch.setattr(JoinedDataset, "batch", counted)
    batches = load_batches(dataset(), sampler(), range(100), workers=2, prefetch=3)
    next(batches)
    deadline = time.monotonic() + 60
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # for a fifth
    assert sorted(made) == [0, 1, 2, 3]
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("batch")]


def test_a_worker_s_error_arrives_at_its_step(dataset, tmp_path: Path) -> None:
    batches = load_batches(dataset(), sampler(), range(20), workers=2)
    first = next(batches)
    assert first.names
    for tar in (tmp_path / "web").glob("*.tar"):
        tar.write_bytes(b"")
    with pytest.raises(ValueError, match="changed"):
        list(batches)
