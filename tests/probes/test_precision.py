"""An encoder in bfloat16 gives a probe nearly what it gives in float32."""

import numpy as np
import pytest
import torch

from cliptex.experts.playroom import WEIGHTS
from cliptex.models.clip import load_clip
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import GroupConfig, Schedule
from cliptex.probes.features import encode

SIDE = 64


@pytest.fixture(scope="module")
def encoder() -> FrozenEncoder:
    return FrozenEncoder(load_clip(WEIGHTS / "clip").image)


def test_features__are_close(encoder):
    """Within 2 % of their length for every picture; maps and pooled features alike."""
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8))
    for dense in (True, False):
        exact, half = (
            encode(encoder, pictures, dense=dense, precision=p) for p in ("fp32", "bf16")
        )
        assert exact.dtype == half.dtype == torch.float32 and not torch.equal(exact, half)
        apart = (half - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
        assert apart.max() < 0.02


def test_rows__move_by_less_than_a_point(encoder, world, kinds, probe_one):
    """mIoU of a linear probe; its heads stay in float32."""
    found = {}
    for precision in ("fp32", "bf16"):
        config = GroupConfig(
            schedule=Schedule(lr=3e-3, warmup_steps=2),
            epochs=8,
            batch_size=4,
            resolution=SIDE,
            precision=precision,
        )
        train, test = (world(kinds["segmentation"], count, s) for count, s in ((24, 0), (16, 1)))
        found[precision] = probe_one(encoder, train, None, test, config)
    exact, half = (
        next(row for row in found[p].results if row.metric == "miou") for p in ("fp32", "bf16")
    )
    assert exact.value > 40, "more than chance"
    assert abs(exact.value - half.value) < 1
    assert (exact.protocol["precision"], half.protocol["precision"]) == ("fp32", "bf16")
    assert "head_precision" not in half.protocol
    assert {p.dtype for p in found["bf16"].head.module.parameters()} == {torch.float32}
