"""A frozen encoder gives no gradient and its fingerprint sees every change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cliptex.models.clip import Clip
from cliptex.models.encoder import FrozenEncoder


def test_probing_changes_nothing(tiny: Callable[..., Clip]) -> None:
    encoder = tiny("resnet").image.train()
    frozen = FrozenEncoder(encoder)
    before = frozen.fingerprint()
    encoder.train()  # someone forgets; batch statistics must not move all the same
    features = frozen(torch.rand(2, 3, 64, 64))
    assert not features.maps[32].requires_grad
    assert frozen.fingerprint() == before
    assert (frozen.stride, frozen.channels, frozen.image_size) == (32, 256, 64)


@pytest.mark.parametrize("what", ["parameter", "statistics", "mean"])
def test_fingerprint_sees_every_change(tiny: Callable[..., Clip], what: str) -> None:
    encoder = tiny("resnet").image
    frozen = FrozenEncoder(encoder)
    before = frozen.fingerprint()
    tensor = {
        "parameter": encoder.tower.conv1.weight,  # pyright: ignore
        "statistics": encoder.tower.bn1.running_var,  # pyright: ignore
        "mean": encoder.mean,
    }[what]
    tensor.data.view(-1)[0] += 1e-3
    assert frozen.fingerprint() != before


def test_any_encoder_can_be_frozen_but_must_say_its_map() -> None:
    with pytest.raises(ValueError, match="stride"):
        FrozenEncoder(nn.Identity())
