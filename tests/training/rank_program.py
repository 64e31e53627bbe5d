"""One rank of a small world: two steps of every configuration in a folder, results on rank 0.

    python rank_program.py FOLDER      FOLDER/NAME.yaml -> FOLDER/NAME.safetensors

A result holds "loss.STEP.NAME", "norm.STEP", "grad.STEP.NAME", and "weight.NAME" after the second
step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from cliptex.training.checkpoint import whole_state
from cliptex.training.config import load_config
from cliptex.training.distributed import World, join_world
from cliptex.training.optimizer import set_lr
from cliptex.training.parallel import whole_tensors
from cliptex.training.setup import prepare
from cliptex.training.step import agree, train_step

STEPS = 2


def two_steps(path: Path, world: World) -> dict[str, torch.Tensor]:
    config = load_config(path)
    run = prepare(config, world)
    run.engine.train()
    run.scale.value = min(run.scale.value, 64)  # the first of float16 is made to overflow
    found: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        torch.manual_seed(step)
        set_lr(run.optimizer, config.lr)
        batch = run.dataset.batch(run.sampler, step, rank=world.rank, world=world.size)
        report = train_step(run, batch, agree(world, batch, config.accumulate, stop=False))
        assert report.applied
        found[f"norm.{step}"] = torch.tensor(report.grad_norm)
        found |= {f"loss.{step}.{k}": torch.tensor(v) for k, v in report.losses.items()}
        gradients = {}
        for name, parameter in run.model.named_parameters():
            assert parameter.grad is not None, f"{name} is not in the graph"
            gradients[f"grad.{step}.{name}"] = parameter.grad
        found |= whole_tensors(gradients)
    for name, buffer in run.model.named_buffers():
        assert len({tuple(row) for row in world.gather(buffer.flatten().tolist())}) == 1, name
    return found | {f"weight.{name}": t for name, t in whole_state(run.model).items()}


def main(folder: Path) -> None:
    with join_world() as world:
        for path in sorted(folder.glob("*.yaml")):
            found = two_steps(path, world)
            if world.main:
                save_file(found, path.with_suffix(".safetensors"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
