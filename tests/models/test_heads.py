import pytest
import torch
from torch.nn import functional as F

from cliptex.models.config import HEAD_NAMES
from cliptex.models.heads import Aspp, aspp_rates, dense_head, upsample


@pytest.mark.parametrize(
    ("stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36)), (32, (3, 6, 9)), (14, (7, 14, 21))]
)
def test_aspp_rates(stride, rates):
    assert aspp_rates(stride) == rates


@pytest.mark.parametrize("name", HEAD_NAMES)
@pytest.mark.parametrize("batch", [1, 2])
def test_head__shapes_and_a_batch_of_one_learns(name, batch):
    head = dense_head(name, 32, 5, stride=16, width=32)
    x = torch.randn(batch, 32, 3, 4)
    out = head.train()(x)
    assert out.shape == (batch, 5, 3, 4)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("name", HEAD_NAMES)
def test_head__a_picture_does_not_depend_on_its_batch(name):
    head = dense_head(name, 32, 5, stride=16, width=32, dropout=0.0).train()
    x = torch.randn(3, 32, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(head(x)[:1], head(x[:1]), rtol=1e-4, atol=1e-5)


def test_batch_norm__fails_for_a_batch_of_one():
    head = dense_head("deeplabv3", 32, 5, stride=16, width=32, norm="batch").train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        head(torch.randn(1, 32, 4, 4))


def test_parameters__as_in_the_authors_library():
    """ViT-B: 512 channels out of five branches of 512, or of 768 + 4 x 192."""
    counts = {
        name: sum(p.numel() for p in dense_head(name, 768, 21, stride=16).parameters())
        for name in HEAD_NAMES
    }
    norm = 2 * 512
    classifier = 512 * 21 + 21
    aspp = 768 * 512 * (1 + 3 * 9 + 1) + 5 * 512 * 512 + 6 * norm
    pyramid = 4 * (768 * 192 + 2 * 192) + (768 + 4 * 192) * 512 * 9 + norm
    assert counts == {
        "linear": 768 * 21 + 21,
        "deeplabv3": aspp + classifier,
        "pspnet": pyramid + classifier,
    }


def test_aspp__image_pooling_is_the_mean_everywhere():
    aspp = Aspp(16, (1, 2, 3), 16).eval()
    x = torch.randn(2, 16, 5, 6)
    pooled = aspp.branches[-1](x)
    one = aspp.branches[-1](x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(pooled, one.expand(-1, -1, 5, 6))


def test_aspp__atrous_branch_sees_its_dilation_only():
    aspp = Aspp(16, (2,), 16)
    conv = aspp.branches[1][0]
    x = torch.zeros(1, 16, 9, 9)
    x[0, :, 4, 4] = 1
    seen = conv(x)[0].abs().sum(0) > 0
    assert seen.nonzero().tolist() == [[i, j] for i in (2, 4, 6) for j in (2, 4, 6)]


def test_unknown_head_is_refused():
    with pytest.raises(ValueError, match="choose from"):
        dense_head("unet", 4, 2, stride=16)  # pyright: ignore[reportArgumentType]


def test_upsample__is_torch_bilinear():
    x = torch.randn(2, 3, 4, 5)
    assert upsample(x, (4, 5)) is x  # nothing to do
    for corners in (False, True):
        expected = F.interpolate(x, size=(9, 7), mode="bilinear", align_corners=corners)
        torch.testing.assert_close(upsample(x, (9, 7), align_corners=corners), expected)
