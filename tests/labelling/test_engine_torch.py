"""A network of PyTorch whose answers depend on their batch, and that runs out of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.experts.torch_expert import Adapter, Outputs, TorchExpert
from cliptex.labelling.engine import label_shards
from cliptex.labelling.options import LabelOptions
from cliptex.labels.kinds import ScalarField
from cliptex.labels.reader import LabelReader
from cliptex.shards.images import decode_image

BATCH = 6


def make(room: int) -> TorchExpert:
    """A convolution with room for so many images; its sum is rounded as often as there are any."""
    torch.manual_seed(0)

    def prepare(image: np.ndarray) -> Tensor:
        return torch.from_numpy(image).permute(2, 0, 1).float() / 255

    def forward(network: nn.Module, batch: Tensor) -> list[Outputs]:
        if len(batch) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        share = network(batch)[:, 0] / len(batch)
        total = torch.zeros_like(share)
        for _ in batch:
            total += share
        return [{"depth": depth} for depth in total]

    def read(outputs: Outputs, size: tuple[int, int]) -> Prediction:
        return Prediction(outputs["depth"].numpy())

    spec = ExpertSpec(
        name="torch",
        kind=ScalarField("1/m"),
        source="a test",
        revision="1",
        weights_sha256="0" * 64,
        licence="none",
    )
    return TorchExpert(spec, nn.Conv2d(3, 1, 3, padding=1), Adapter(prepare, forward, read))


@pytest.mark.parametrize("room", [1, 4])
def test_out_of_memory__moves_values_by_one_code_step_at_most(
    make_shards, draw_picture, tmp_path: Path, room: int
) -> None:
    shards = make_shards([draw_picture(i, (60, 90)) for i in range(12)], per_shard=6)
    images = [decode_image(sample.image) for sample in shards][:BATCH]
    whole = make(BATCH).predict(images)
    alone = [make(BATCH).predict([image])[0] for image in images]
    pairs = list(zip(whole, alone, strict=True))
    assert any(not np.array_equal(a.label, b.label) for a, b in pairs), "else nothing is tested"

    stores = [
        LabelReader(
            label_shards(shards, [make(n)], tmp_path / str(n), LabelOptions(batch_size=BATCH))[
                0
            ].folder
        )
        for n in (BATCH, room)
    ]
    for shard in shards.shards:
        for key in shards.keys(shard):
            first, second = (store.read(shard, key) for store in stores)
            assert first is not None and second is not None
            step = float(np.ptp(first.array)) / 1022
            assert np.abs(first.array - second.array).max() <= 1.001 * step
