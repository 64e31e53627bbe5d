from __future__ import annotations

import pytest
import torch
from torch import nn

from cliptex.models.flops import count_flops, count_training_flops, measure_peak


def test_count_flops__a_product_by_hand():
    layer = nn.Linear(3, 5, device="meta")
    flops, out = count_flops(layer, torch.empty(7, 3, device="meta"))
    assert (flops, out.shape) == (2 * 7 * 3 * 5, (7, 5))


@pytest.mark.parametrize("made", [lambda out: out, lambda out: [out, out]], ids=["one", "list"])
def test_count_training_flops__backward_to_the_parameters_only(made):
    class Layers(nn.Sequential):
        def forward(self, x):
            return made(super().forward(x))

    layers = Layers(nn.Linear(3, 5), nn.Linear(5, 2)).to("meta")
    forward = 2 * 7 * (3 * 5 + 5 * 2)
    backward = 2 * 7 * (3 * 5 + 2 * 5 * 2)  # of the first layer the weights alone, no input
    assert count_training_flops(layers, torch.empty(7, 3, device="meta")) == forward + backward
    assert all(p.grad is None for p in layers.parameters())


def test_count__batch_norm_of_a_single_value():
    layers = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).to("meta")
    image = torch.empty(1, 3, device="meta")
    assert count_flops(layers, image)[0] == 2 * 3 * 5
    assert count_training_flops(layers, image) == 2 * 2 * 3 * 5


def test_count_flops__attention_is_counted_in_its_products():
    length, width = 4, 8
    layer = nn.TransformerEncoderLayer(width, 2, width, batch_first=True, device="meta")
    flops, _ = count_flops(layer, torch.empty(1, length, width, device="meta"))
    products = 4 * width**2 + 2 * width**2  # queries, keys, values, output; two layers
    assert flops == 2 * length * products + 2 * 2 * length**2 * width
    assert torch.backends.mha.get_fastpath_enabled()


def test_measure_peak__is_a_rate():
    assert 1e9 < measure_peak(torch.device("cpu"), torch.float32, repeats=1) < 1e15
