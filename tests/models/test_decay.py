from __future__ import annotations

from torch import nn

from cliptex.models.decay import decay_groups


def test_decay_groups__biases_and_norms_do_not_decay():
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4), nn.Linear(4, 2, bias=False))
    conv, norm, linear = layers
    layers[2].weight.requires_grad_(False)
    decayed, spared = decay_groups(layers.parameters(), 0.1)
    assert decayed == {"params": [conv.weight], "weight_decay": 0.1}
    assert spared == {"params": [conv.bias, norm.weight, norm.bias], "weight_decay": 0.0}
    (all_of_them,) = decay_groups(layers.parameters(), 0.1, biases=True)
    assert (len(all_of_them["params"]), all_of_them["weight_decay"]) == (4, 0.1)
    assert decay_groups(linear.parameters(), 0.1) == []
