"""A training step of CLIPTeX against CLIP-FT, and CLIP-FT against open_clip in a plain loop.

    python benchmarks/bench_train_step.py [--check] [--rounds N] [--threads N] [--gains]

ViT-B/16 at 512x512, batch 2, bfloat16 autocast, the configuration of `recipes.paper`
with random weights and made-up labels; all variants interleaved in one process, medians. Peak
memory is that of a fresh process for each variant. The losses are also timed alone, from labels in
memory to the predictions' gradients; reading and cropping labels is `bench_loader.py`'s.
`--gains` times possible improvements instead.
The last lines are `NAME: MEASURED (goal GOAL) ok|short`; with `--check` one that is short makes
the exit code 1.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.data.joined import Batch
from cliptex.losses import DenseTargets
from cliptex.machine import keep_freed_memory
from cliptex.models.config import ModelSpec
from cliptex.models.towers import PlainAttention
from cliptex.recipes import paper
from cliptex.tasks import TASKS
from cliptex.training.config import TrainConfig
from cliptex.training.distributed import World
from cliptex.training.log import peak_memory
from cliptex.training.network import FlopCount, build_network
from cliptex.training.optimizer import LossScale, build_optimizer
from cliptex.training.parallel import distribute
from cliptex.training.setup import Run
from cliptex.training.step import agree, train_step

SIZE, BATCH = (512, 512), 2
CHANNELS = {"segmentation": 81, "depth": 1, "normals": 3}
CAPTIONS = ("a dog runs over the grass with a red ball", "two people sit at a table in a kitchen")
VARIANTS = ("CLIP-FT", "CLIPTeX", "open_clip")

Step = Callable[[], object]


def make_batch(channels: Mapping[str, int]) -> Batch:
    """Two noise images with labels at the images' size."""
    draw = torch.Generator().manual_seed(0)
    valid = torch.rand(BATCH, *SIZE, generator=draw) > 0.05
    classes = torch.randint(0, 81, (BATCH, 1, 19, 23), generator=draw).float()
    classes = F.interpolate(classes, size=SIZE, mode="nearest")[:, 0].to(torch.uint8)
    target = {
        "segmentation": classes.masked_fill(~valid, 255),
        "depth": torch.randn(BATCH, 1, *SIZE, generator=draw),
        "normals": F.normalize(torch.randn(BATCH, 3, *SIZE, generator=draw), dim=1),
    }
    present = torch.ones(BATCH, dtype=torch.bool)
    return Batch(
        images=torch.randint(0, 256, (BATCH, 3, *SIZE), generator=draw, dtype=torch.uint8),
        captions=CAPTIONS,
        names=("a", "b"),
        targets={
            task: DenseTargets(target=target[task], valid=valid, present=present)
            for task in channels
        },
    )


def make_run(channels: Mapping[str, int], **changes: Any) -> Run:
    """A run of the recipe without its data."""
    config: TrainConfig = paper(
        "vit-b16",
        Path("none"),
        Path("none"),
        tasks=dict.fromkeys(channels, "none"),
        model=ModelSpec(name="open_clip:ViT-B-16"),
        batch_size=BATCH,
        **changes,
    )
    world = World()
    model = build_network(config, channels).train()
    engine = distribute(model, config, world)
    added = [module for name, module in model.named_children() if name != "clip"]
    nothing: Any = None
    return Run(
        config=config,
        world=world,
        steps=1,
        dataset=nothing,
        sampler=nothing,
        tasks={name: TASKS[name] for name in channels},
        channels=channels,
        model=model,
        engine=engine,
        optimizer=build_optimizer(model.clip, added, config),
        scale=LossScale(enabled=False),
        ema=None,
        flops=FlopCount(model.clip.config, config.dense, channels),
    )


def our_step(channels: Mapping[str, int], **changes: Any) -> Step:
    """A step of the trainer on a batch that is ready."""
    run, batch = make_run(channels, **changes), make_batch(channels)
    return lambda: train_step(run, batch, agree(run.world, batch, 1, stop=False))


def open_clip_step() -> Step:
    """open_clip's model, tokenizer and loss with fused AdamW in the simplest loop."""
    model = cast(Any, open_clip.create_model("ViT-B-16", force_image_size=SIZE))
    tokenize = open_clip.get_tokenizer("ViT-B-16")
    loss_of = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, fused=True)
    batch = make_batch({})
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    model.train()

    def step() -> None:
        images = (batch.images.float() / 255 - mean) / std
        tokens = tokenize(list(batch.captions))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            image, text, scale = model(images, tokens)
            loss = loss_of(image, text, scale)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def make_step(variant: str) -> Step:
    """One of VARIANTS."""
    if variant == "open_clip":
        return open_clip_step()
    return our_step(CHANNELS if variant == "CLIPTeX" else {})


def timed(steps: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """Median seconds of each, interleaved; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def loss_steps() -> dict[str, Step]:
    """Losses alone, from predictions to their gradient: on cells, and after interpolation."""
    batch = make_batch(CHANNELS)
    cells = (BATCH, -1, SIZE[0] // 16, SIZE[1] // 16)
    leaves = {
        task: torch.randn(BATCH, n, *cells[2:]).requires_grad_() for task, n in CHANNELS.items()
    }

    def on_cells() -> None:
        for task, leaf in leaves.items():
            TASKS[task].loss(leaf, batch.targets[task].to("cpu")).backward()

    def interpolated() -> None:
        for task, leaf in leaves.items():
            targets = batch.targets[task]
            full = F.interpolate(leaf, size=SIZE, mode="nearest")  # (B, C, H, W)
            _plain_loss(full, targets).backward()

    return {"losses on cells": on_cells, "interpolate, then losses": interpolated}


def _plain_loss(full: Tensor, targets: DenseTargets) -> Tensor:
    if targets.target.ndim == 3:
        return F.cross_entropy(full, targets.target.long(), ignore_index=255)
    error = torch.where(targets.valid[:, None], full - targets.target, 0).abs()
    return error.sum() / (targets.valid.sum() * full.shape[1])


def matmul_peak() -> float:
    """FLOPs a second of the best of ten bfloat16 products of 4096 x 4096 matrices."""
    a, b = torch.randn(2, 4096, 4096).bfloat16()
    best = min(timed({"product": lambda: a @ b}, 1)["product"] for _ in range(10))
    return 2 * 4096**3 / best


def memory_of(variant: str, threads: int) -> float:
    """GB that a fresh process had resident at most, in three steps."""
    command = [sys.executable, __file__, "--threads", str(threads), "--memory-of", variant]
    command += ["--default-malloc"]  # a heap that never shrinks would hide what is in use
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_memory(variant: str) -> None:
    """What the process started by `memory_of` does."""
    step = make_step(variant)
    for _ in range(3):
        step()
    print(peak_memory() / 1e9)


def gains(rounds: int) -> None:
    """Time of the CLIPTeX step with one thing changed, over that of the step as it is."""
    plain = our_step(CHANNELS)
    fused_attention = make_run(CHANNELS)
    for module in fused_attention.model.modules():
        if isinstance(module, PlainAttention):  # torch's fused kernel instead
            module.forward = super(PlainAttention, module).forward  # pyright: ignore
    unfused = make_run(CHANNELS)
    groups = [
        {key: group[key] for key in ("params", "weight_decay", "lr_scale")}
        for group in unfused.optimizer.param_groups
    ]
    loop = torch.optim.AdamW(groups, lr=3e-5, foreach=False, fused=False)
    object.__setattr__(unfused, "optimizer", loop)
    short = make_run(CHANNELS)
    tokenize = short.model.clip.tokenizer
    length = int(tokenize(CAPTIONS).argmax(1).max()) + 1  # the end has the largest id
    shorter: Any = lambda texts: tokenize(texts)[:, :length]  # noqa: E731
    short.model.clip.tokenizer = shorter
    text: Any = short.model.clip.text
    text.attn_mask = text.attn_mask[:length, :length]
    changed = {
        "torch's attention": fused_attention,
        "AdamW in a loop": unfused,
        f"texts cut to {length} tokens": short,
    }
    batch = make_batch(CHANNELS)
    steps: dict[str, Step] = {"as it is": plain}
    for name, run in changed.items():
        steps[name] = lambda run=run: train_step(run, batch, agree(run.world, batch, 1, stop=False))
    steps["activation checkpointing"] = our_step(CHANNELS, activation_checkpointing=True)
    steps["compiled blocks"] = our_step(CHANNELS, compile=True)
    for name, seconds in timed(steps, rounds).items():
        print(f"  {name:26} {seconds:.3f} s")


def report(name: str, measured: float, goal: float) -> bool:
    """Print one claim's line; whether it holds."""
    good = measured <= goal
    print(f"{name}: {measured:.4g} (goal <= {goal:g}) {'ok' if good else 'short'}")
    return good


def main() -> None:
    """Time the variants and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="exit 1 where a claim is short")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds per variant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--default-malloc", action="store_true", help="see cliptex.machine")
    parser.add_argument("--gains", action="store_true", help="time possible improvements instead")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.default_malloc:
        keep_freed_memory()  # as `train` does; for all variants alike
    if options.memory_of:
        return print_memory(options.memory_of)
    print(f"torch {torch.__version__}, {options.threads} threads, ViT-B/16, batch {BATCH}, {SIZE}")
    if options.gains:
        return gains(options.rounds)
    seconds = timed({name: make_step(name) for name in VARIANTS}, options.rounds)
    losses = timed(loss_steps(), 9)
    memory = {name: memory_of(name, options.threads) for name in VARIANTS}
    peak = matmul_peak()
    for name in VARIANTS:
        print(f"  {name:10} {seconds[name]:.3f} s a step, at most {memory[name]:.2f} GB")
    for name, value in losses.items():
        print(f"  {name}: {1e3 * value:.1f} ms, {value / seconds['CLIPTeX']:.2%} of the step")
    run = make_run(CHANNELS)
    flops = BATCH * FlopCount(run.model.clip.config, run.config.dense, CHANNELS).per_image(SIZE)
    rate = flops / seconds["CLIPTeX"]
    print(f"  {flops / 1e12:.3f} TFLOP a step: {rate / 1e12:.3f} of {peak / 1e12:.3f} TFLOP/s")
    print(f"  share of the bfloat16 matmul peak: {rate / peak:.1%}")
    holds = [
        report("step over CLIP-FT", seconds["CLIPTeX"] / seconds["CLIP-FT"], 1.12),
        report("memory over CLIP-FT", memory["CLIPTeX"] / memory["CLIP-FT"], 1.15),
        report("losses over the step", losses["losses on cells"] / seconds["CLIPTeX"], 0.01),
        report("CLIP-FT over open_clip", seconds["CLIP-FT"] / seconds["open_clip"], 1.02),
    ]
    sys.exit(options.check and not all(holds))


if __name__ == "__main__":
    main()
