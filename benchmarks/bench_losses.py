"""Exact losses on cells against interpolate-then-loss, both timed in one run.

    python benchmarks/bench_losses.py [--check] [--rounds N] [--threads N]

The last lines are `NAME: MEASURED (goal GOAL) ok|short`; with `--check` one that is short makes
the exit code 1. Sizes: batch 4, 81 classes at stride 16 on labels of 512x512; normals likewise.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.losses import cell_cross_entropy, cell_l1

BATCH, CLASSES, CELLS, PIXELS, IGNORE = 4, 81, 32, 512, 255

Loss = Callable[[Tensor], Tensor]


def interpolated_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """What `cell_cross_entropy` equals by definition."""
    full = F.interpolate(logits, size=labels.shape[-2:], mode="nearest")
    return F.cross_entropy(full, labels, ignore_index=IGNORE)


def interpolated_l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """What `cell_l1` equals by definition."""
    full = F.interpolate(prediction, size=target.shape[-2:], mode="nearest")
    error = torch.where(valid[:, None], full - target, 0).abs()
    return error.sum() / (valid.sum() * prediction.shape[1])


def run(loss: Loss, values: Tensor) -> tuple[float, Tensor, float]:
    """Loss, gradient, and milliseconds for forward and backward."""
    leaf = values.clone().requires_grad_()
    start = time.perf_counter()
    result = loss(leaf)
    result.backward()
    elapsed = 1e3 * (time.perf_counter() - start)
    assert leaf.grad is not None
    return result.item(), leaf.grad, elapsed


def compare(ours: Loss, reference: Loss, values: Tensor, rounds: int) -> tuple[float, ...]:
    """Median speed-up of interleaved rounds, and largest differences of loss and gradient."""
    times: tuple[list[float], list[float]] = ([], [])
    loss_gap = gradient_gap = 0.0
    for _ in range(rounds + 1):
        a, gradient_a, time_a = run(ours, values)
        b, gradient_b, time_b = run(reference, values)
        times[0].append(time_a)
        times[1].append(time_b)
        loss_gap = max(loss_gap, abs(a - b))
        gradient_gap = max(gradient_gap, float((gradient_a - gradient_b).abs().max()))
    mine, theirs = (statistics.median(t[1:]) for t in times)  # the first round warms up
    print(f"  ours {mine:.2f} ms, interpolated {theirs:.1f} ms (median of {rounds})")
    return theirs / mine, loss_gap, gradient_gap


def blocky_labels(generator: torch.Generator) -> Tensor:
    """(B, H, W) int64: regions as in real label maps, and 5 % ignored pixels."""
    coarse = torch.randint(0, CLASSES, (BATCH, 1, 19, 23), generator=generator).float()
    labels = F.interpolate(coarse, size=(PIXELS, PIXELS), mode="nearest")[:, 0].long()
    labels[torch.rand(labels.shape, generator=generator) < 0.05] = IGNORE
    return labels


def report(name: str, measured: float, goal: float, *, at_least: bool) -> bool:
    """Print one claim's line; whether it holds."""
    good = measured >= goal if at_least else measured <= goal
    sign = ">=" if at_least else "<="
    print(f"{name}: {measured:.3g} (goal {sign} {goal:g}) {'ok' if good else 'short'}")
    return good


def main() -> None:
    """Time both losses and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="exit 1 where a claim is short")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds per loss")
    parser.add_argument("--threads", type=int, default=1, help="for both sides; one waits least")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    labels = blocky_labels(generator)
    small = labels.to(torch.uint8)  # as the label store gives them; cross_entropy wants int64
    logits = torch.randn(BATCH, CLASSES, CELLS, CELLS, generator=generator)
    normals = F.normalize(torch.randn(BATCH, 3, PIXELS, PIXELS, generator=generator), dim=1)
    valid = labels != IGNORE
    print(f"torch {torch.__version__}, threads for both sides: {torch.get_num_threads()}")
    print(f"cross-entropy, {BATCH}x{CLASSES}x{CELLS}x{CELLS} on {PIXELS}x{PIXELS}:")
    entropy = compare(
        lambda x: cell_cross_entropy(x, small, ignore=IGNORE),
        lambda x: interpolated_cross_entropy(x, labels),
        logits,
        options.rounds,
    )
    print(f"L1, {BATCH}x3x{CELLS}x{CELLS} on {PIXELS}x{PIXELS}:")
    absolute = compare(
        lambda x: cell_l1(x, normals, valid),
        lambda x: interpolated_l1(x, normals, valid),
        logits[:, :3],
        options.rounds,
    )
    holds = [
        report("cross-entropy speed-up", entropy[0], 100, at_least=True),
        report("cross-entropy loss difference", entropy[1], 1e-6, at_least=False),
        report("cross-entropy gradient difference", entropy[2], 1e-8, at_least=False),
        report("l1 speed-up", absolute[0], 1.5, at_least=True),
        report("l1 loss difference", absolute[1], 1e-6, at_least=False),
        report("l1 gradient difference", absolute[2], 1e-8, at_least=False),
    ]
    sys.exit(options.check and not all(holds))


if __name__ == "__main__":
    main()
