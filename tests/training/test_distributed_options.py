"""Losses that are off by default, on two processes as on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cliptex.training.config import TrainConfig, dump_config
from cliptex.training.distributed import World

PROGRAM = Path(__file__).with_name("rank_program.py")
OPTIONS = {
    "sigmoid": {"contrast": "sigmoid", "sigmoid_bias": -2.0},
    "uncertainty": {"uncertainty": True},
}
WAYS = {
    "ddp": {},
    "fsdp2": {"parallel": "fsdp2"},
    "ddp-parts": {"accumulate": 2},
    "fsdp2-parts": {"parallel": "fsdp2", "accumulate": 3},
}


@pytest.fixture(scope="module")
def found(configure, tmp_path_factory, launch, rank_program) -> Path:
    """A folder of what two processes find, and of what one finds ("OPTION.alone")."""
    folder, alone = tmp_path_factory.mktemp("together"), tmp_path_factory.mktemp("alone")
    for option, changes in OPTIONS.items():
        common: TrainConfig = configure(
            "segmentation",
            "depth",
            precision="fp32",
            dense={"width": 16, "dropout": 0.0},
            batch_size=11,
            **changes,
        )
        dump_config(common, alone / f"{option}.yaml")
        torch.save(rank_program.two_steps(alone / f"{option}.yaml", World()), folder / option)
        for way, more in WAYS.items():
            dump_config(common.model_copy(update=more), folder / f"{option}.{way}.yaml")
    assert launch(2, PROGRAM, folder) == [0, 0]
    return folder


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_equal_one(option: str, way: str, found: Path) -> None:
    alone = torch.load(found / option, weights_only=True)
    together = load_file(found / f"{option}.{way}.safetensors")
    assert together.keys() == alone.keys()
    own = "clip.logit_bias" if option == "sigmoid" else "uncertainty.log_variance.depth"
    assert alone[f"grad.0.{own}"].abs() > 1e-4
    grads = [name for name in alone if name.startswith("grad.")]
    largest = max(alone[name].abs().max().item() for name in grads)
    for name in (*grads, *(n for n in alone if n.startswith(("loss.", "norm.")))):
        tolerance = 1e-5 * (largest if name.startswith("grad.") else 1)
        torch.testing.assert_close(
            together[name], alone[name], rtol=2e-5, atol=tolerance, msg=lambda m, n=name: f"{n} {m}"
        )
