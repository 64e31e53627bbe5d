from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cliptex.models.encoder import Features, FrozenEncoder
from cliptex.models.flops import count_flops, count_training_flops
from cliptex.probes import FeatureStore, GroupConfig, Naming, Schedule, Storage, run_probe
from cliptex.probes.boxes import build_detector
from cliptex.probes.config import DetectionConfig
from cliptex.probes.cost import (
    PAPER_SETS,
    Counts,
    Device,
    Job,
    Part,
    Products,
    cost_of,
    cost_table,
    encoder_pass,
    rounds_of,
    stored_bytes,
)
from cliptex.probes.features import pack
from cliptex.probes.heads import MapLearner
from cliptex.probes.recipes import small_mask_rcnn, small_ssd


class Patches(nn.Module):
    """One patchify convolution of 4 channels at stride 16."""

    stride, channels = 16, 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 16, stride=16, bias=False)

    def forward(self, images: torch.Tensor) -> Features:
        maps = self.conv(images)
        pooled = maps.mean((2, 3))
        return Features(pooled, pooled, {16: maps})


class Counting(Patches):
    """Counts the pictures that it sees, but for blank ones, which only show heads its shape."""

    seen = 0

    def forward(self, images: torch.Tensor) -> Features:
        self.seen += int(images.flatten(1).any(1).sum())
        return super().forward(images)


PASS = 2 * 4 * 3 * 16 * 16 * 4  # 2 x outputs x kernel x cells of a 32 pixel picture
UP = 2 * 5 * 2 * 2 * 32 + 2 * 5 * 32 * 2 * 32  # 5 outputs from 2 x 2 to 2 x 32 to 32 x 32
HEAD = 2 * 4 * 5 * 4 + UP  # 4 channels to 5 outputs on 4 cells
LEARN = 2 * HEAD  # and back to weights and outputs: frozen maps take no gradient


def job(**changes) -> Job:
    values = {"schedule": Schedule(lr=1), "epochs": 2, "batch_size": 4, "resolution": 32}
    config = GroupConfig.model_validate({**values, **changes})
    return Job(data=Counts("segmentation", "d", 10, 3, 5), config=config)


COCO = next(one for one in PAPER_SETS if one.dataset == "coco")


def boxes(config: DetectionConfig, data: Counts = COCO) -> Job:
    return Job(data=data, config=config)


def test_flops__by_hand():
    encoder = FrozenEncoder(Patches())
    flops, features = encoder_pass(encoder, 32)
    assert flops == PASS and features.maps[16].shape == (1, 4, 2, 2)
    one = cost_of(job(), encoder)
    assert (one.steps, one.heads) == (6, 1)
    assert one.parts == (Part("encoder", 0, 23 * PASS), Part("linear", 1, 20 * LEARN + 3 * HEAD))
    grid = cost_of(job(learning_rates=(1.0, 2.0), seeds=(0, 1, 2)), encoder)
    choice = 16 * (PASS + 6 * LEARN) + 2 * (PASS + 6 * HEAD)  # 2 of 10 are held out
    refit = 20 * (PASS + 3 * LEARN)
    assert (grid.heads, grid.steps) == (6, 4 + 6)
    assert grid.flops == choice + refit + 3 * (PASS + 3 * HEAD)


@pytest.mark.parametrize("stored", [None, "float16"])
@pytest.mark.parametrize("val_images", [None, 5])
@pytest.mark.parametrize("rates", [(), (0.01, 0.1)])
def test_rounds__are_those_of_a_run(world, kinds, tmp_path, monkeypatch, stored, val_images, rates):
    batches, learn = [], MapLearner.learn
    monkeypatch.setattr(
        MapLearner,
        "learn",
        lambda self, batch, *rest: (batches.append(batch), learn(self, batch, *rest)),
    )
    data = Counts("segmentation", "d", 10, 3, 5, val_images)
    one = replace(job(learning_rates=rates, resolution=16), data=data, stored=stored)
    train, val, test = (
        world(kinds["segmentation"], count or 1, seed)
        for seed, count in enumerate((data.train, val_images, data.test))
    )
    module = Counting()
    storage = Storage(features=None if stored is None else FeatureStore(tmp_path, stored))
    names = {"naming": Naming(model="m"), "storage": storage}
    run_probe(FrozenEncoder(module), train, val if val_images else None, test, one.config, **names)
    cost, rounds = cost_of(one, FrozenEncoder(Patches())), rounds_of(one)
    assert cost.parts[0].flops == module.seen * PASS / 4  # of 16 pixels, not 32
    assert cost.steps == len({id(batch) for batch in batches})
    trained = rounds.learnt * max(len(rates), 1) + rounds.again
    assert trained == sum(len(batch.targets) for batch in batches)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("side", [1, 3])
def test_stored_bytes__are_those_of_the_store(dtype, side):
    features = torch.rand(7, side, side)
    packed = pack(features, dtype).values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in packed)
    assert stored_bytes(features[None], dtype) == size


def test_on__runs_one_after_the_other_need_no_more_memory():
    one = cost_of(replace(job(), stored="float16"), FrozenEncoder(Patches()))
    three = one.on("other", 3)
    assert [part.name for part in three.parts] == ["other", "linear"]
    assert (three.flops, three.heads, three.steps) == (3 * one.flops, 3, 18)
    assert three.stored == 3 * one.stored == 3 * 10 * 2 * 4 * 4 and three.memory == one.memory


def test_flops__a_stride_that_does_not_divide_counts_the_side_that_is_seen():
    encoder = FrozenEncoder(Patches())
    assert encoder_pass(encoder, 33)[0] == PASS
    assert encoder_pass(encoder, 15)[0] == PASS / 4


def test_counting_leaves_the_encoder_where_it_is():
    encoder = FrozenEncoder(Patches())
    before = encoder.fingerprint()
    encoder_pass(encoder, 32)
    assert encoder.fingerprint() == before


def test_hours__are_those_of_the_precision():
    device = Device("mine", {"fp32": 10, "tf32": 50, "bf16": 100}, 0.5)
    assert device.hours(50e12 * 3600, "bf16") == pytest.approx(1)
    assert device.hours(50e12 * 3600, "fp32") == pytest.approx(10)


def test_parts__say_the_precision_that_runs():
    encoder = FrozenEncoder(Patches())
    half = {"precision": "bf16", "head_precision": "tf32"}
    dense = cost_of(job(**half), encoder)
    found = cost_of(boxes(small_ssd().model_copy(update=half)), encoder)
    for cost in (dense, found, dense.on("other", 2)):
        assert [part.precision for part in cost.parts] == ["bf16", "tf32"]
    for cost in (cost_of(job(), encoder), cost_of(boxes(small_mask_rcnn()), encoder)):
        assert [part.precision for part in cost.parts] == ["fp32", "fp32"]


def test_table__prices_every_part_by_its_precision():
    """36e15 FLOPs are an hour at 10 TFLOP/s."""
    parts = (Part("encoder", 0, 360e15, "bf16"), Part("linear", 1, 36e15), Part("pspnet", 1, 0.0))
    cost = replace(cost_of(job(), FrozenEncoder(Patches())), parts=parts)
    device = Device("mine", {"fp32": 20, "tf32": 50, "bf16": 200}, 0.5)
    *table, choices, assumed = cost_table([cost], device).splitlines()
    assert "10 x 2 + 3" in table[1]
    assert [line.split()[-2:] for line in table[1:4]] == [
        ["1.00", "bf16"],
        ["1.00", "fp32"],
        ["0.00", "fp32"],
    ]
    assert table[4].split()[-1] == "2.00"
    assert choices == (
        "GPU-hours would be 11.0 with `precision=fp32` `head_precision=fp32`, 4.4 with "
        "`precision=tf32` `head_precision=tf32`, 1.4 with `precision=bf16` "
        "`head_precision=tf32`"
    )
    assert "at 50% (assumed) of the dense peaks of mine: 20 in fp32, 50 in tf32" in assumed


@pytest.mark.parametrize("probe", [small_mask_rcnn(), small_ssd()], ids=lambda probe: probe.name)
def test_detection__products_are_those_of_a_real_training_pass(probe):
    """Fewer boxes than the most it takes cost less, so the count is a bound, and close to it."""
    side, pictures = 128, 2
    maps = {16: torch.rand(pictures, 4, side // 16, side // 16)}
    corners = 4.0 * torch.arange(24)[:, None]  # (n, 1)
    boxes = torch.cat([corners, corners, corners + 32, corners + 32], dim=1)
    target = {
        "boxes": boxes,
        "labels": torch.ones(24, dtype=torch.int64),
        "masks": torch.ones(24, side, side, dtype=torch.uint8),
    }
    torch.manual_seed(0)
    head = build_detector(probe, {16: 4}, COCO.outputs).train()
    with FlopCounterMode(display=False) as counter:
        losses = head.losses(maps, (side, side), [target] * pictures)
        forward = counter.get_total_flops() / pictures
        torch.stack(list(losses.values())).sum().backward()
    both = counter.get_total_flops() / pictures
    one = {16: torch.empty(1, 4, side // 16, side // 16, device="meta")}
    layers = Products(probe, head.to("meta"), side, train=True)
    assert forward <= count_flops(layers, one)[0] <= 1.2 * forward
    assert both <= count_training_flops(layers, one) <= 1.2 * both


def test_detection__rates_are_compared_on_a_part_of_train_or_on_val():
    probe, encoder = small_ssd(), FrozenEncoder(Patches())  # 16 pictures a step, 16 epochs

    def counted(*rates, val=None, train=40):
        changed = probe.model_copy(update={"learning_rates": rates})
        cost = cost_of(boxes(changed, Counts("detection", "d", train, 6, 3, val)), encoder)
        return cost.steps, cost.parts[0].flops / encoder_pass(encoder, probe.resolution)[0]

    assert counted() == (32, 32 * 16 + 6)  # the 8 that are left of an epoch are dropped
    assert counted(0.1, 0.2) == (32, 32 * 16 + 4 + 6)
    assert counted(0.1, 0.2, val=9) == (32, 32 * 16 + 9 + 6)
    assert counted(train=10) == (16, 16 * 10 + 6)


def test_paper_sets__their_counts():
    counts = {one.dataset: (one.train, one.test) for one in PAPER_SETS}
    assert counts["voc"] == (10_582, 1_449) and counts["ade20k"] == (20_210, 2_000)
    assert counts["nyu-depth"] == (795, 654) and counts["imagenet"][0] == 1_281_167
    assert counts["nyu-normals"] == (30_907, 654) and counts["places365"] == (1_803_460, 36_500)
    assert counts["coco"] == (117_266, 5_000) and len(counts) == 7
