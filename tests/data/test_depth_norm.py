"""How a scalar field becomes a target."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cliptex.data.joined import JoinedDataset
from cliptex.data.pictures import ByteBudgetCache
from cliptex.data.sampler import Sampler
from cliptex.data.transforms import Augmentation
from cliptex.labels.kinds import Normalisation, ScalarField

SIZE = (8, 8)
LEFT_HALF = Augmentation(scale=(0.5, 0.5), ratio=(0.5, 0.5))


@pytest.fixture
def make(write_shards, write_labels, encode):
    """One image whose depth is 1 to 5 in five columns of 8 rows, and unknown in three more."""
    field = np.tile(np.array([1, 2, 3, 4, 5, np.nan, np.nan, np.nan], np.float32), (8, 1))
    shards = write_shards([(encode(np.zeros((*SIZE, 3), np.uint8)), "")])
    reader = write_labels(shards, "depth", ScalarField("1/m"), {"000": field})

    def make(rule: Normalisation, augmentation: Augmentation) -> JoinedDataset:
        return JoinedDataset(
            shards=shards,
            labels={"depth": reader},
            augmentation=augmentation,
            seed=0,
            depth_norm=rule,
            cache=ByteBudgetCache(1 << 20),
        )

    return make


@pytest.mark.parametrize(
    ("rule", "expected"),
    [  # of 1 to 5: median 3, mean absolute deviation 6 / 5
        ("median-mad", [-2 / 1.2, -1 / 1.2, 0, 1 / 1.2, 2 / 1.2]),
        ("min-max", [0, 0.25, 0.5, 0.75, 1]),
        ("none", [1, 2, 3, 4, 5]),
    ],
)
def test_targets(make, rule: Normalisation, expected: list[float]) -> None:
    data = make(rule, Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0)))
    sampler = Sampler(total=1, batch_size=1, seed=0, sizes=(SIZE,))
    for _ in range(2):  # the second time from the cache
        found = data.batch(sampler, 0).targets["depth"]
        assert found.target[0, 0, 4, :5].tolist() == pytest.approx(expected, abs=0.01)
        assert not found.valid[0, :, 6:].any() and (found.target[0, 0, :, 6:] == 0).all()


@pytest.mark.parametrize("rule", ["median-mad", "min-max"])
def test_a_crop_is_normalised_by_the_whole_image(make, rule: Normalisation) -> None:
    data = make(rule, LEFT_HALF)
    plain = make("none", LEFT_HALF)
    shift, scale = {"median-mad": (3, 1.2), "min-max": (1, 4)}[rule]
    sampler = Sampler(total=1, batch_size=1, seed=0, sizes=(SIZE,))
    for step in range(3):
        found, raw = (d.batch(sampler, step).targets["depth"] for d in (data, plain))
        wanted = torch.where(found.valid[:, None], (raw.target - shift) / scale, 0)
        torch.testing.assert_close(found.target, wanted, atol=0.01, rtol=0)
