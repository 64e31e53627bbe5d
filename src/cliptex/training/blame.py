"""Which samples of a batch gave a loss that is not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from cliptex.data.joined import Batch
from cliptex.training.batchnorm import statistics_kept
from cliptex.training.setup import Run
from cliptex.training.step import Agreed, forward, rows_of

SHOWN = 20


@torch.no_grad()
def to_blame(run: Run, batch: Batch, agreed: Agreed, step: int) -> list[str]:
    """Names of the samples of a step whose embedding or dense losses are not finite.

    All of the global batch where no sample alone is to blame: a gradient overflowed, say, or the
    temperature. All ranks call it together, with their shares, and get the same.
    """
    with statistics_kept(run.norms):
        out = forward(run, batch)
    bad = ~(out.image_embedding.isfinite().all(1) & out.text_embedding.isfinite().all(1))  # (B,)
    for name, task in run.tasks.items():
        predicted = out.predictions[name].float()
        for row in range(len(predicted)):
            target = rows_of(batch, slice(row, row + 1)).targets[name].to(run.world.device)
            bad[row] |= ~task.loss(predicted[row : row + 1], target).isfinite()
    flags = _of_all_ranks(bad, agreed, run)
    indices = run.sampler.batch_at(step).indices  # of the global batch, in the order of the ranks
    found = [index for index, flag in zip(indices, flags, strict=True) if flag] or indices
    return [":".join(run.dataset.shards.locate(index)) for index in found]


def _of_all_ranks(own: Tensor, agreed: Agreed, run: Run) -> list[bool]:
    """Every rank's flags in a row: (B_rank,) -> (B,)."""
    rows, longest = agreed.rows, max(agreed.rows)
    padded = own.tolist() + [False] * (longest - len(own))
    told = run.world.gather(padded)
    return [bool(flag) for part, n in zip(told, rows, strict=True) for flag in part[:n]]


def as_text(names: list[str]) -> str:
    """The first of `names`, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
