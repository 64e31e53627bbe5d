from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cliptex.models.clip import describe_clip
from cliptex.models.config import DenseConfig, ModelSpec
from cliptex.models.sources import named_config
from cliptex.training.dryrun import measure_activations, parameters_by_part, plan_memory, plan_table
from cliptex.training.network import FlopCount, meta_network
from cliptex.training.parallel import blocks

CHANNELS = {"segmentation": 81, "depth": 1, "normals": 3}


def test_flops_of_a_vit_are_those_of_the_formula(configure) -> None:
    dense = configure().dense
    counted = FlopCount(named_config("open_clip:ViT-B-16"), dense, {}).per_image((224, 224))
    n, d = 197, 768
    image = 12 * (24 * n * d**2 + 4 * n**2 * d) + 2 * 196 * 768 * d + 2 * d * 512
    n, d = 77, 512
    text = 12 * (24 * n * d**2 + 4 * n**2 * d) + 2 * d * 512
    assert counted == pytest.approx(3 * (image + text), rel=1e-3)


def test_tasks_and_pixels_cost_arithmetic(configure, model) -> None:
    dense = configure().dense
    plain = FlopCount(model.config, dense, {})
    tasks = FlopCount(model.config, dense, CHANNELS)
    assert tasks.per_image((32, 32)) > plain.per_image((32, 32))
    assert plain.per_image((64, 32)) > 1.5 * plain.per_image((32, 32))


def test_blocks_are_the_layers_of_both_towers(configure, model) -> None:
    clip = meta_network(model.config, configure().dense, {}).clip
    assert (len(blocks(clip.image)), len(blocks(clip.text))) == (2, 1)
    resnet = meta_network(named_config("open_clip:RN50"), configure().dense, {}).clip
    assert len(blocks(resnet.image)) == 3 + 4 + 6 + 3
    timm = meta_network(named_config("timm:vit_tiny_patch16_224"), configure().dense, {}).clip
    assert len(blocks(timm.image)) == 12


def test_vit_h_on_the_meta_device() -> None:
    network = meta_network(named_config("open_clip:ViT-H-14"), DenseConfig(), CHANNELS)
    assert {p.device.type for p in network.parameters()} == {"meta"}
    parts = parameters_by_part(network)
    assert parts["clip.image"] == pytest.approx(632e6, rel=1e-3)  # open_clip's model card
    assert parts["clip.text"] == pytest.approx(354e6, rel=1e-3)
    assert sum(parts.values()) == sum(p.numel() for p in network.parameters())


def test_plans_share_what_fsdp2_shares(configure, model) -> None:
    config = configure(*CHANNELS, batch_size=64)
    plans = plan_memory(model.config, config, CHANNELS)
    assert [(p.gpus, p.parallel, p.batch) for p in plans] == [
        (1, "ddp", 64),
        (8, "ddp", 8),
        (8, "fsdp2", 8),
        (64, "ddp", 1),
        (64, "fsdp2", 1),
    ]
    network = meta_network(model.config, config.dense, CHANNELS)
    assert plans[0].states == 16 * sum(p.numel() for p in network.parameters())
    assert plans[2].states == plans[1].states // 8
    assert plans[0].activations.kept == pytest.approx(8 * plans[1].activations.kept, rel=0.05)
    for plan in plans:
        assert 0 < plan.activations.checkpointed < plan.activations.kept
        assert plan.total(True) < plan.total(False)
    assert len(plan_table(plans)) == 6
    assert not any("refused" in line for line in plan_table(plans))


@pytest.mark.parametrize(
    "name",
    ["corenet:ViT-B-16", "open_clip:RN50", "timm:convnext_tiny", "timm:vit_tiny_patch16_224"],
)
def test_plan_memory__every_family(name: str, configure) -> None:
    spec = ModelSpec(name=name)
    config = configure(*CHANNELS, model=spec, batch_size=2, resolution=((64, 64),))
    (plan,) = plan_memory(describe_clip(spec), config, CHANNELS, gpus=(1,))
    weights = meta_network(describe_clip(spec), config.dense, CHANNELS).parameters()
    assert plan.states == 16 * sum(p.numel() for p in weights)
    assert 0 < plan.activations.checkpointed < plan.activations.kept


@pytest.mark.parametrize(
    ("name", "millions"), [("open_clip:ViT-H-16", 1000), ("corenet:ViT-H-16", 769)]
)
def test_plan_memory__vit_h16(name: str, millions: int, configure) -> None:
    """The two ways to have the paper's largest tower, at its size, on 1, 8 and 64 GPUs."""
    spec = ModelSpec(name=name)
    config = configure(*CHANNELS, model=spec, batch_size=64, dense={}, resolution=((512, 512),))
    plans = plan_memory(describe_clip(spec), config, CHANNELS)
    assert [plan.gpus for plan in plans] == [1, 8, 8, 64, 64]
    alone, *_, shared = plans
    assert alone.states / 16e6 == pytest.approx(millions, rel=0.01)
    assert shared.states == alone.states // 64
    # By hand, bytes a token and block that a ViT keeps in bfloat16: input, two norms' outputs,
    # queries, keys, values, the attention's output, and before and behind GELU four widths each,
    # and a sum; 32 blocks of 1280, of 1025 tokens and 64 images.
    tower = 32 * 64 * 1025 * 1280 * 2 * (1 + 2 + 3 + 1 + 4 + 4 + 1)
    assert alone.activations.kept == pytest.approx(tower, rel=0.15)
    assert alone.activations.checkpointed < 0.12 * alone.activations.kept
    assert shared.total(checkpointing=True) < 1e9 < alone.total(checkpointing=True)


def test_plan_memory__largest_share_of_all_sizes(configure, model) -> None:
    """Four GPUs have two samples at 64 x 64: one there has more pixels than two at 32 x 32."""
    config = configure(batch_size=8, resolution=((32, 32), (64, 64)))
    for gpus, expected in {2: (4, (32, 32), True), 4: (1, (64, 64), False)}.items():
        plans = plan_memory(model.config, config, {}, gpus=(gpus,))
        assert {(plan.batch, plan.size, plan.enough) for plan in plans} == {expected}
        refused = [line.endswith("batch_size is too small") for line in plan_table(plans)[1:]]
        assert refused == [not expected[2]] * 2


class Wave(nn.Module):
    """Keeps two maps for the way back: its input and the exponential."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weight).exp().sin()


class Waves(nn.Module):
    """Six of them, and the one thing of a Clip that is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = SimpleNamespace(tokenize=lambda texts: torch.zeros(len(texts), 1))
        self.layers = nn.Sequential(*(Wave() for _ in range(6)))

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def test_activations_by_hand() -> None:
    network = Waves()
    found = measure_activations(network, list(network.layers), 2, (16, 16))
    one_map = 2 * 3 * 16 * 16 * 4
    assert found.kept == 6 * 2 * one_map
    assert found.checkpointed == (6 + 2) * one_map  # all inputs, and one block's inside
