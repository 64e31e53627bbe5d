import torch
from torch.nn import functional as F

from cliptex.models.heads import interpolation
from cliptex.probes.config import ProbeConfig
from cliptex.probes.fit import (
    Heads,
    TrainData,
    _sample,
    _strata,
    epochs_for,
    fit_heads,
)
from cliptex.probes.scores import Score
from cliptex.probes.select import best_index


def test_interpolation__is_torch_bilinear():
    x = torch.randn(1, 2, 3, 5)
    expected = F.interpolate(x, size=(7, 11), mode="bilinear", align_corners=False)
    got = interpolation(3, 7) @ x @ interpolation(5, 11).T
    torch.testing.assert_close(got, expected)


def test_sample__pairs_interpolated_features_with_their_labels():
    """Labels that are themselves the interpolated feature must come out equal."""
    maps = torch.randn(5, 1, 4, 4)
    labels = F.interpolate(maps, size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    data = TrainData(maps, labels)
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    x, y = _sample(data, torch.tensor([3, 1]), 8, generator, cpu)
    assert x.shape == (1, 2 * 64) and y.shape == (2, 8, 8)
    torch.testing.assert_close(x[0], y.flatten())


def test_strata__every_index_is_equally_likely():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([_strata(16, 4, generator) for _ in range(4000)])
    assert (drawn.div(4, rounding_mode="floor") == torch.arange(4)).all()
    shares = torch.bincount(drawn.flatten(), minlength=16) / 4000
    assert (shares - 0.25).abs().max() < 0.03


def test_heads__many_at_once_are_pointwise_convolutions():
    heads = Heads(torch.randn(2, 3, 4), torch.randn(2, 3))
    maps = torch.randn(5, 4, 6, 7)
    out = heads(maps)
    assert out.shape == (5, 2, 3, 6, 7)
    expected = F.conv2d(maps, heads.weight[1][:, :, None, None], heads.bias[1])
    torch.testing.assert_close(out[:, 1], expected)
    torch.testing.assert_close(heads[1](maps)[:, 0], expected)


def test_fit__recovers_a_linear_map_through_standardisation():
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(64, 3, 2, 2, generator=generator) * torch.tensor([1.0, 100, 0.01]).view(
        3, 1, 1
    ) + torch.tensor([5.0, -300, 0]).view(3, 1, 1)
    target = 2 * maps[:, 0] - 0.01 * maps[:, 1] + 30 * maps[:, 2] + 1  # at the maps' own size
    config = ProbeConfig(resolution=2, epochs=60, batch_size=16, pixels=2, weight_decay=0)
    heads = fit_heads(
        TrainData(maps, target),
        lambda out, y: F.mse_loss(out[:, 0], y),
        1,
        config,
        rates=[0.5],
        rows=torch.arange(64),
    )
    torch.testing.assert_close(heads(maps)[:, 0, 0], target, atol=0.05, rtol=0)
    weight = heads.weight[0, 0] / torch.tensor([2, -0.01, 30])
    torch.testing.assert_close(weight, torch.ones(3), atol=0.05, rtol=0)


def test_fit__weights_decay_and_biases_do_not():
    """Of constant features, which are 0 once standardised, the bias alone can learn."""
    data = TrainData(torch.full((64, 3, 2, 2), 5.0), torch.full((64, 2, 2), 7.0))

    def fit(decay: float) -> Heads:
        return fit_heads(
            data,
            lambda out, y: F.mse_loss(out[:, 0], y),
            1,
            ProbeConfig(resolution=2, epochs=40, batch_size=16, pixels=2, weight_decay=decay),
            rates=[0.3],
            rows=torch.arange(64),
        )

    free, held = fit(0.0), fit(1.0)
    assert held.weight.abs().max() < 0.01 * free.weight.abs().max()
    assert (held(data.maps) - 7).abs().max() < 0.01


def test_best__direction_ties_and_nan():
    nan = float("nan")
    assert best_index([Score(1, "higher"), Score(3, "higher"), Score(3, "higher")]) == 1
    assert best_index([Score(nan, "lower"), Score(0.4, "lower"), Score(0.3, "lower")]) == 2


def test_epochs__small_sets_are_repeated():
    config = ProbeConfig(epochs=12, min_steps=200, batch_size=32)
    assert epochs_for(16, config) == 200
    assert epochs_for(1000, config) == 12
