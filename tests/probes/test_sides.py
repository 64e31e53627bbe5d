"""Encoders whose stride does not divide the resolution: one rule for every way of probing."""

import numpy as np
import pytest
import torch
from torch import nn

from cliptex.models.encoder import Features, FrozenEncoder, fit_to_stride, nearest_side
from cliptex.probes import FeatureStore, GroupConfig, Naming, Schedule, Storage, run_probe
from cliptex.probes.boxes import read_maps
from cliptex.probes.cost import encoder_pass


class Strict(nn.Module):
    """Mean colour of cells of 7 pixels; refuses other sides, as `ImageEncoder` does."""

    stride, channels = 7, 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.seen: set[tuple[int, int]] = set()

    def forward(self, images: torch.Tensor) -> Features:
        height, width = images.shape[-2:]
        assert height % 7 == 0 and width % 7 == 0
        self.seen.add((height, width))
        maps = nn.functional.avg_pool2d(images, 7) * self.scale
        maps = torch.cat([maps, torch.ones_like(maps[:, :1])], dim=1)
        return Features(maps.mean((2, 3)), maps.mean((2, 3)), {7: maps})


@pytest.fixture
def strict() -> FrozenEncoder:
    return FrozenEncoder(Strict())


def test_nearest_side__rounds_and_is_never_nothing():
    assert [nearest_side(side, 14) for side in (512, 224, 518, 3)] == [518, 224, 518, 14]
    assert nearest_side(500, 16) == 496


def test_fit__shows_the_whole_picture():
    ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    fitted = fit_to_stride(ramp, 7)
    assert fitted.shape == (1, 3, 14, 14)
    assert fitted.mean().item() == pytest.approx(0.5, abs=1e-3)
    assert fit_to_stride(ramp, 4) is ramp


def test_group__linear_and_deeper_heads_train_and_say_what_was_seen(strict, world, kind, tmp_path):
    config = GroupConfig(
        heads=("linear", "deeplabv3", "pspnet"),
        schedule=Schedule(lr=0.01),
        epochs=1,
        batch_size=4,
        resolution=16,
        width=16,
    )
    sets = [world(kind, n, s) for n, s in ((8, 0), (4, 1))]
    for store in (None, FeatureStore(tmp_path)):
        storage = Storage(features=store)
        outcomes = run_probe(
            strict, sets[0], None, sets[1], config, naming=Naming(model="m"), storage=storage
        )
        for outcome in outcomes:
            protocol = outcome.results[0].protocol
            assert np.isfinite(outcome.results[0].value)
            assert (protocol["resolution"], protocol["encoder_resolution"]) == (16, 14)
    assert strict.encoder.seen == {(14, 14)}


def test_fast__says_what_was_seen(strict, world, kinds, colours, config, probe_one):
    kind = kinds["segmentation"]
    sets = (world(kind, 12, 0), None, world(kind, 4, 1))
    row = probe_one(strict, *sets, config(rates=(0.1,)), model="m").results[0]
    assert (row.protocol["resolution"], row.protocol["encoder_resolution"]) == (16, 14)
    assert row.protocol["map"] == [4, 2, 2]


def test_cost_and_detection_read_the_same_side(strict):
    assert encoder_pass(strict, 16)[1].maps[7].shape == (1, 4, 2, 2)
    maps = read_maps(strict, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert maps[7].shape == (1, 4, 5, 5)  # 35 pixels
