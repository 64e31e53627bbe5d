"""Several processes on one global batch are one process on that batch, to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cliptex.training.config import TrainConfig, dump_config
from cliptex.training.distributed import World
from cliptex.training.setup import prepare

ALL = ("segmentation", "depth", "normals")
PROGRAM = Path(__file__).with_name("rank_program.py")
VARIANTS = {
    "ddp": {},
    "fsdp2": {"parallel": "fsdp2"},
    "ddp-accumulated": {"accumulate": 2},
    "fsdp2-accumulated": {"parallel": "fsdp2", "accumulate": 3},
    "ddp-checkpointed": {"activation_checkpointing": True},
    "fsdp2-checkpointed": {"parallel": "fsdp2", "activation_checkpointing": True},
}
HALF = {
    f"{parallel}-{precision}": {"parallel": parallel, "precision": precision, "lr": 3e-4}
    for parallel in ("ddp", "fsdp2")
    for precision in ("bf16", "fp16")
}
# Half precision is near float32 at the same weights. Adam's first step follows the gradient's signs
# however small it is, so at a large rate rounding alone makes other weights of step two: at 3e-3
# that step shortens the contrastive gradient to a fifth, and what is left of it by 5 to 25 % more
# or less, depending on how a processor multiplies in bfloat16.

NORMED = {  # batch norm: as DDP does it, since one process would see other batches
    f"{tower}-{parallel}-{precision}": (
        tower,
        {"parallel": parallel, "precision": precision, "activation_checkpointing": again},
    )
    for tower in ("corenet", "resnet")
    for parallel, precision, again in (
        ("ddp", "fp32", False),
        ("fsdp2", "fp32", True),
        ("fsdp2", "bf16", False),
    )
}


@pytest.fixture(scope="module")
def common(configure, write_labels, tmp_path_factory) -> TrainConfig:
    """Three sizes, batches that no even number divides, and labels for six samples of 32."""
    labels = tmp_path_factory.mktemp("few")
    write_labels(labels, missing=range(6, 32))
    return configure(
        *ALL,
        labels=labels,
        precision="fp32",
        dense={"width": 16, "dropout": 0.0},
        batch_size=11,
        resolution=((32, 32), (40, 24), (48, 40)),
        loss_weights={"clip": 1.0, "segmentation": 0.7, "depth": 1.1, "normals": 1.3},
    )


@pytest.fixture(scope="module")
def alone(common: TrainConfig, tmp_path_factory, rank_program) -> dict[str, torch.Tensor]:
    """What one process finds."""
    folder = tmp_path_factory.mktemp("alone")
    dump_config(common, folder / "alone.yaml")
    return rank_program.two_steps(folder / "alone.yaml", World())


@pytest.fixture(scope="module")
def at_small_rate(common: TrainConfig, tmp_path_factory, rank_program) -> dict:
    """What one process finds in float32 at the rate of HALF."""
    (rate,) = {changes["lr"] for changes in HALF.values()}
    folder = tmp_path_factory.mktemp("alone")
    dump_config(common.model_copy(update={"lr": rate}), folder / "alone.yaml")
    return rank_program.two_steps(folder / "alone.yaml", World())


@pytest.fixture(scope="module")
def together(common: TrainConfig, tmp_path_factory, launch, tower) -> Path:
    """Folder of what two processes find, by variant."""
    folder = tmp_path_factory.mktemp("together")
    for name, changes in (VARIANTS | HALF).items():
        dump_config(common.model_copy(update=changes), folder / f"{name}.yaml")
    sizes = {"resolution": ((64, 64), (96, 64))}
    for name, (family, changes) in NORMED.items():
        changes = {"model": tower(family), **sizes, **changes}
        dump_config(common.model_copy(update=changes), folder / f"{name}.yaml")
    assert launch(2, PROGRAM, folder) == [0, 0]
    return folder


def test_the_example_is_what_it_should_be(common: TrainConfig) -> None:
    run = prepare(common)
    shares = [
        run.dataset.batch(run.sampler, step, rank=rank, world=2)
        for step in range(2)
        for rank in range(2)
    ]
    assert len({share.images.shape[2:] for share in shares}) == 2  # sizes
    lengths = [len(share.captions) for share in shares]
    assert any(a != b for a, b in zip(lengths[::2], lengths[1::2], strict=True))
    labelled = [int(share.targets["depth"].present.sum()) for share in shares]
    assert 0 in labelled and max(labelled) > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_equal_one(variant: str, together: Path, alone) -> None:
    compare(load_file(together / f"{variant}.safetensors"), alone)


@pytest.mark.parametrize("variant", HALF)
def test_half_precision_is_near(variant: str, together: Path, at_small_rate) -> None:
    near(load_file(together / f"{variant}.safetensors"), at_small_rate)


@pytest.mark.parametrize("family", ["corenet", "resnet"])
def test_batch_norms__fsdp2_equals_ddp(family: str, together: Path) -> None:
    """Whole beside sharded weights; that ranks agree on the statistics, the program asserts."""
    ddp = load_file(together / f"{family}-ddp-fp32.safetensors")
    assert any(n.endswith("running_mean") and t.any() for n, t in ddp.items())
    compare(load_file(together / f"{family}-fsdp2-fp32.safetensors"), ddp)
    half = load_file(together / f"{family}-fsdp2-bf16.safetensors")
    for name in (n for n in ddp if n.startswith("loss.")):
        torch.testing.assert_close(half[name], ddp[name], rtol=0.05, atol=0.01)


def near(found: dict[str, torch.Tensor], alone: dict[str, torch.Tensor]) -> None:
    for name in (n for n in alone if n.startswith(("loss.", "norm."))):
        torch.testing.assert_close(found[name], alone[name], rtol=0.05, atol=0.01)
    for name in (n for n in alone if n.startswith("grad.") and alone[n].ndim >= 2):
        one, other = found[name].flatten(), alone[name].flatten()
        assert torch.cosine_similarity(one, other, dim=0) > 0.98, name
        assert one.norm() == pytest.approx(other.norm().item(), rel=0.1), name


def compare(found: dict[str, torch.Tensor], alone: dict[str, torch.Tensor]) -> None:
    assert found.keys() == alone.keys()
    largest = max(t.abs().max().item() for n, t in alone.items() if n.startswith("grad."))
    for name, expected in alone.items():
        got = found[name]
        if name.startswith("weight."):
            # Adam divides by the gradient: where that is rounding alone (keys' biases cancel in
            # the softmax), the step is of any sign.
            gradients = [alone.get(name.replace("weight", f"grad.{step}", 1)) for step in range(2)]
            real = torch.tensor(True)
            for gradient in (g for g in gradients if g is not None):
                real = real & (gradient.abs() > 1e-5 * largest)
            got, expected = torch.where(real, got, 0), torch.where(real, expected, 0)
            tolerance = 1e-4
        else:
            tolerance = 1e-5 * (largest if name.startswith("grad.") else 1)
        torch.testing.assert_close(
            got, expected, rtol=1e-5, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.slow
def test_four_processes_equal_one(common: TrainConfig, tmp_path, launch, alone) -> None:
    for name in ("ddp", "fsdp2"):
        dump_config(common.model_copy(update=VARIANTS[name]), tmp_path / f"{name}.yaml")
    assert launch(4, PROGRAM, tmp_path) == [0] * 4
    for name in ("ddp", "fsdp2"):
        compare(load_file(tmp_path / f"{name}.safetensors"), alone)


def test_parts_of_a_batch_equal_the_batch(
    common: TrainConfig, tmp_path, rank_program, alone
) -> None:
    for parts in (2, 5):
        dump_config(common.model_copy(update={"accumulate": parts}), tmp_path / "parts.yaml")
        compare(rank_program.two_steps(tmp_path / "parts.yaml", World()), alone)
