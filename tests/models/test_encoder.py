"""A frozen encoder gives no gradient and its fingerprint sees every change."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cliptex.models.clip import Clip
from cliptex.models.encoder import Features, FrozenEncoder, fingerprint


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


class Scaled(nn.Module):
    """An encoder whose features depend on more than weights; it keeps count of its calls."""

    stride, channels = 4, 3

    def __init__(self, scale: float, act: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.calls, self._scale, self.act = 0, scale, act
        self.pool = nn.AvgPool2d(4)

    def forward(self, images: Tensor) -> Features:
        self.calls += 1
        maps = self.act(self.pool(images) * self._scale)
        return Features(maps.mean((2, 3)), maps.mean((2, 3)), {4: maps})


def test_fingerprint__of_equal_weights_and_other_arithmetic() -> None:
    made = [Scaled(1.0), Scaled(2.0), Scaled(1.0, torch.tanh)]
    assert len({FrozenEncoder(encoder).fingerprint() for encoder in made}) == 3
    frozen = FrozenEncoder(made[0])
    before = frozen.fingerprint()
    frozen(torch.rand(1, 3, 8, 8))
    assert frozen.fingerprint() == before == FrozenEncoder(Scaled(1.0)).fingerprint()


def test_fingerprint__of_a_dilated_tower_and_of_rules_of_positions(
    tiny: Callable[..., Clip],
) -> None:
    variants = [{}, {"output_stride": 16}, {"pool_pos": "flat1d"}]
    towers = [tiny("resnet", **changes).image for changes in variants]
    assert len({fingerprint(tower) for tower in towers}) == 1
    assert len({FrozenEncoder(tower).fingerprint() for tower in towers}) == 3


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite: its weights have diverged"):
        FrozenEncoder(Scaled(math.nan))(torch.rand(1, 3, 8, 8))


def test_any_encoder_can_be_frozen_but_must_say_its_map() -> None:
    with pytest.raises(ValueError, match="stride"):
        FrozenEncoder(nn.Identity())


@pytest.mark.parametrize(("stride", "channels"), [(2, 3), (4, 5), (8, 3)])
def test_an_encoder_that_misstates_its_map__is_refused(stride: int, channels: int) -> None:
    encoder = Scaled(1.0)
    encoder.stride, encoder.channels = stride, channels
    with pytest.raises(ValueError, match=r"Scaled says stride .* maps are \{4: \(2, 3, 4, 4\)\}"):
        FrozenEncoder(encoder)(torch.rand(2, 3, 16, 16))
