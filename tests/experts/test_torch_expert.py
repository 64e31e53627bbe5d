"""The base of PyTorch experts: batches by shape, and the retry in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.experts.torch_expert import Adapter, Outputs, Placement, Precision, TorchExpert
from cliptex.labels.kinds import ScalarField

SPEC = ExpertSpec(
    name="tiny",
    kind=ScalarField("1/m"),
    source="a test",
    revision="",
    weights_sha256="",
    licence="none",
)


class Overflows(nn.Module):
    """A matrix product of the image with itself; in half precision infinite for bright images."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, torch.dtype]] = []

    def forward(self, images: Tensor) -> Tensor:
        product = images @ torch.ones(images.shape[-1], images.shape[-1])  # (B, 3, h, w)
        self.calls.append((len(images), product.dtype))
        bright = images.amax(dim=(1, 2, 3), keepdim=True) > 200
        half = product.dtype != torch.float32
        return torch.where(bright & half, torch.inf, product)


def prepare(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float()


def forward(network: nn.Module, batch: Tensor) -> list[Outputs]:
    return [{"sum": x, "count": torch.tensor(1)} for x in network(batch)]


def read(found: Outputs, size: tuple[int, int]) -> Prediction:
    assert found["sum"].dtype == torch.float32 and found["count"].dtype == torch.int64
    return Prediction(found["sum"][0].numpy())


def expert(precision: Precision) -> TorchExpert:
    return TorchExpert(
        SPEC, Overflows(), Adapter(prepare, forward, read), Placement("cpu", precision)
    )


def grey(value: int, size: tuple[int, int] = (4, 4)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_infinite_in_half_precision__is_computed_again_in_float32(precision: Precision) -> None:
    tested = expert(precision)
    labels = [found.label for found in tested.predict([grey(10), grey(255), grey(20)])]
    assert [label[0, 0] for label in labels] == [40, 1020, 80]
    half = getattr(torch, precision)
    assert tested.network.calls == [(3, half), (1, torch.float32)]  # only the one that failed


def test_float32__is_not_tried_twice() -> None:
    tested = expert("float32")
    assert tested.predict([grey(255)])[0].label[0, 0] == 1020
    assert tested.network.calls == [(1, torch.float32)]


def test_images_of_one_shape_share_a_batch__in_the_order_given() -> None:
    tested = expert("float32")
    images = [grey(1), grey(2, (2, 6)), grey(3), grey(4, (2, 6)), grey(5)]
    labels = [found.label for found in tested.predict(images)]
    assert [label.shape for label in labels] == [(4, 4), (2, 6), (4, 4), (2, 6), (4, 4)]
    assert [label[0, 0] for label in labels] == [4, 12, 12, 24, 20]
    assert [count for count, _ in tested.network.calls] == [3, 2]
    assert tested.predict([]) == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_float32__is_not_tf32_while_predicting(precision: Precision) -> None:
    seen = set()

    def flags() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    def look(network: nn.Module, batch: Tensor) -> list[Outputs]:
        seen.add(flags())
        return forward(network, batch)

    before = flags()
    tiny = TorchExpert(SPEC, Overflows(), Adapter(prepare, look, read), Placement("cpu", precision))
    tiny.predict([grey(1), grey(250)])
    assert seen == {("highest", False)} and flags() == before
