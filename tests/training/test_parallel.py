from __future__ import annotations

import pytest
import torch

from cliptex.training.setup import Run, prepare
from cliptex.training.step import agree, compute_losses


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler trips over warnings of its own
def test_compiled_blocks_compute_what_plain_ones_do(configure) -> None:
    """Two sizes, so that the compiler meets a change of shape; losses and gradients."""
    changes = {"precision": "fp32", "dense": {"width": 16, "dropout": 0.0}}
    sizes = {"resolution": ((32, 32), (40, 24))}
    plain, compiled = (
        prepare(configure("depth", **changes, **sizes, compile=compile))
        for compile in (False, True)
    )
    assert {plain.sampler.batch_at(step).size for step in range(2)} == {(32, 32), (40, 24)}
    for step in range(2):
        one, other = gradients(plain, step), gradients(compiled, step)
        for name, gradient in one.items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-5)


def gradients(run: Run, step: int) -> dict[str, torch.Tensor]:
    """Of one step's loss, and the loss itself; the weights stay."""
    run.engine.train()
    batch = run.dataset.batch(run.sampler, step)
    run.optimizer.zero_grad(set_to_none=True)
    loss = compute_losses(run, batch, agree(run.world, batch, 1, stop=False))["total"]
    loss.backward()
    found = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
    return {**found, "loss": loss.detach()}
