import torch
from torch.nn import functional as F

from cliptex.models.heads import interpolation
from cliptex.probes import fast
from cliptex.probes.linear import (
    DrawnPixels,
    LinearHeads,
    TrainData,
    begin_stack,
    epochs_for,
    strata,
)
from cliptex.probes.method import HeadKey
from cliptex.probes.train import train_heads


def fit_heads(data, loss, config, *, rate):
    """A linear head on all rows of `data`, with one output."""
    keys, rows, cpu = (
        [HeadKey("linear", rate, 0)],
        torch.arange(len(data.maps)),
        torch.device("cpu"),
    )
    stack, batches = begin_stack(data, loss, 1, config, keys, rows, cpu)
    (heads,) = train_heads([stack], batches, config, label="")
    return heads


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
    config = fast(pixels=8, epochs=1, min_steps=0)
    (batch,) = DrawnPixels(data, torch.tensor([3, 1]), config, generator, cpu).stream()
    x, y = batch.features, batch.targets
    assert x.shape == (1, 2 * 64) and y.shape == (2, 8, 8)
    torch.testing.assert_close(x[0], y.flatten())


def test_strata__every_index_is_equally_likely():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([strata(16, 4, generator) for _ in range(4000)])
    assert (drawn.div(4, rounding_mode="floor") == torch.arange(4)).all()
    shares = torch.bincount(drawn.flatten(), minlength=16) / 4000
    assert (shares - 0.25).abs().max() < 0.03


def test_heads__many_at_once_are_pointwise_convolutions():
    heads = LinearHeads(torch.randn(2, 3, 4), torch.randn(2, 3))
    maps = torch.randn(5, 4, 6, 7)
    out = heads(maps)
    assert out.shape == (5, 2, 3, 6, 7)
    expected = F.conv2d(maps, heads.weight[1][:, :, None, None], heads.bias[1])
    torch.testing.assert_close(out[:, 1], expected)
    torch.testing.assert_close(heads.predict(maps)[1], expected)


def test_fit__recovers_a_linear_map_through_standardisation():
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(64, 3, 2, 2, generator=generator) * torch.tensor([1.0, 100, 0.01]).view(
        3, 1, 1
    ) + torch.tensor([5.0, -300, 0]).view(3, 1, 1)
    target = 2 * maps[:, 0] - 0.01 * maps[:, 1] + 30 * maps[:, 2] + 1  # at the maps' own size
    config = fast(resolution=2, epochs=60, batch_size=16, pixels=2, weight_decay=0)
    loss = lambda out, y: F.mse_loss(out[:, 0], y)  # noqa: E731
    heads = fit_heads(TrainData(maps, target), loss, config, rate=0.5)
    torch.testing.assert_close(heads(maps)[:, 0, 0], target, atol=0.05, rtol=0)
    weight = heads.weight[0, 0] / torch.tensor([2, -0.01, 30])
    torch.testing.assert_close(weight, torch.ones(3), atol=0.05, rtol=0)


def test_fit__weights_decay_and_biases_do_not():
    """Of constant features, which are 0 once standardised, the bias alone can learn."""
    data = TrainData(torch.full((64, 3, 2, 2), 5.0), torch.full((64, 2, 2), 7.0))

    def fit(decay: float) -> LinearHeads:
        config = fast(resolution=2, epochs=40, batch_size=16, pixels=2, weight_decay=decay)
        return fit_heads(data, lambda out, y: F.mse_loss(out[:, 0], y), config, rate=0.3)

    free, held = fit(0.0), fit(1.0)
    assert held.weight.abs().max() < 0.01 * free.weight.abs().max()
    assert (held(data.maps) - 7).abs().max() < 0.01


def test_epochs__small_sets_are_repeated():
    config = fast(epochs=12, min_steps=200, batch_size=32)
    assert epochs_for(16, config) == 200
    assert epochs_for(1000, config) == 12
