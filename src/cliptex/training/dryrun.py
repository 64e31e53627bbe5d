"""What a run would do, before it does it: its numbers, and its first batch as pictures.

Memory on each GPU, estimated from shapes:

    weights, gradients, AdamW's two moments   4 + 4 + 8 bytes a parameter, on every GPU (DDP) or
                                              shared by all (FSDP2)
    average of the weights (`ema`)            4 bytes a parameter, likewise
    copies in half precision                  2 bytes a parameter that is whole on the GPU
    FSDP2's whole layers                      what no block holds, and two blocks at a time
    activations                               what autograd saves in a forward pass, summed up
                                              on fake tensors with fused attention

What the CUDA context, fragmentation and workspaces take (often 1 to 2 GB) comes on top.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from cliptex.data.joined import Batch, JoinedDataset
from cliptex.data.sampler import batch_sizes
from cliptex.files import check_can_make, write_atomic
from cliptex.labels.kinds import Kind
from cliptex.losses import DenseTargets
from cliptex.models.clip import describe_clip
from cliptex.models.config import ClipConfig
from cliptex.models.device import pick_device
from cliptex.training.config import TrainConfig, as_json, of_all_ranks
from cliptex.training.network import DTYPES, FlopCount, Network, meta_network
from cliptex.training.parallel import blocks
from cliptex.training.setup import device_peak, open_data

GPUS = (1, 8, 64)
PAGE = "first-batch.html"
_STYLE = """body{font:14px sans-serif;margin:1.5em;color:#222} pre{background:#f4f4f4;padding:1em}
figure{display:inline-block;margin:4px} figcaption{font-size:12px;color:#555}
h3{margin:1em 0 0;font-size:14px} img{width:224px;display:block}"""


def dry_run(config: TrainConfig, out: Path, device: str = "auto") -> tuple[str, Path]:
    """The summary of a run as text, and the page with its first batch, written into `out`.

    Nothing is trained and no model is built; weights are read only where they describe themselves
    (a folder, a hub name, a corenet file). Raises ValueError as `train` does where data, labels
    and configuration do not belong together.
    """
    check_can_make(out, "the folder of the run (`out`)")
    dataset, sampler, channels, steps = open_data(config)
    clip = describe_clip(config.model)
    network = meta_network(clip, config.dense, channels)
    count = FlopCount(clip, config.dense, channels)
    count.check(sampler.sizes)
    lines = ["configuration", yaml.safe_dump(as_json(config), sort_keys=False), "parameters"]
    parts = parameters_by_part(network)
    lines += [f"  {part:24} {n / 1e6:10.3f} M" for part, n in parts.items()]
    lines += [f"  {'in all':24} {sum(parts.values()) / 1e6:10.3f} M", "", f"{steps} steps of"]
    peak = device_peak(config, pick_device(device))
    for size, batch in zip(sampler.sizes, sampler.batch_sizes, strict=True):
        flops = batch * count.per_image(size)
        lines.append(
            f"  {batch:5} images at {size[0]} x {size[1]}: {flops / 1e12:9.3f} TFLOP, "
            f"at least {flops / peak:8.3f} s on one device of {peak / 1e12:.2f} TFLOP/s"
        )
    lines += ["", "memory in GB on a GPU"]
    lines += [f"  {line}" for line in plan_table(plan_memory(clip, config, channels))]
    text = "\n".join(lines)
    batch = dataset.batch(sampler, 0)
    kinds = {task: reader.kind for task, reader in dataset.labels.items()}
    write_atomic(out / PAGE, _page(text, batch, kinds, dataset).encode())
    return text, out / PAGE


def _page(text: str, batch: Batch, kinds: Mapping[str, Kind], dataset: JoinedDataset) -> str:
    """The page: every image after augmentation, and each task's label half over it."""
    images = batch.images.permute(0, 2, 3, 1).numpy()  # (B, H, W, 3)
    shows = []
    for row, image in enumerate(images):
        figures = [_figure(image, "as the network sees it")]
        for task, kind in kinds.items():
            targets = batch.targets[task]
            if targets.present[row]:
                drawn = draw_target(targets, row, kind)
                mixed = (image.astype(np.float32) + drawn) / 2
                figures.append(_figure(mixed.round().astype(np.uint8), task))
            else:
                figures.append(f"<figure>no label for {html.escape(task)}</figure>")
        caption, name = html.escape(batch.captions[row]), html.escape(batch.names[row])
        shows.append(f"<h3>{caption} <small>{name}</small></h3>{''.join(figures)}")
    title = f"First batch of {html.escape(str(dataset.shards.root))}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style><h1>{title}</h1>{''.join(shows)}"
        f"<h2>Run</h2><pre>{html.escape(text)}</pre></html>\n"
    )


def draw_target(targets: DenseTargets, row: int, kind: Kind) -> np.ndarray:
    """One sample's targets as the loss reads them, in colour: (H, W, 3) uint8."""
    target, valid = targets.target[row].numpy(), targets.valid[row].numpy()
    return kind.draw(kind.from_target(target, valid))


def _figure(image: np.ndarray, caption: str) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    source = base64.b64encode(data.getvalue()).decode()
    label = html.escape(caption)
    return (
        f'<figure><img alt="{label}" src="data:image/png;base64,{source}">'
        f"<figcaption>{label}</figcaption></figure>"
    )


@dataclass(frozen=True)
class Activations:
    """Bytes that a forward pass of a batch keeps, with the blocks' insides and without."""

    kept: int
    checkpointed: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one of `gpus` GPUs that share the work by `parallel`.

    batch, size: samples on that GPU at a time, and their (height, width), where they are the most
    pixels. enough: every global batch has a sample for each GPU; a run without is refused.
    states: weights, gradients, optimizer, average. copies: half-precision and gathered weights.
    """

    gpus: int
    parallel: str
    batch: int
    size: tuple[int, int]
    enough: bool
    states: int
    copies: int
    activations: Activations

    def total(self, checkpointing: bool) -> int:
        """The sum, with or without activation checkpointing."""
        kept = self.activations.checkpointed if checkpointing else self.activations.kept
        return self.states + self.copies + kept


def parameters_by_part(network: nn.Module) -> dict[str, int]:
    """Part of the network -> number of parameters."""
    parts: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        first, *rest = name.split(".")
        part = f"{first}.{rest[0]}" if first in ("clip", "heads") else first
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def plan_memory(
    clip: ClipConfig,
    config: TrainConfig,
    channels: Mapping[str, int],
    gpus: Sequence[int] = GPUS,
) -> list[MemoryPlan]:
    """One plan for every number of GPUs and way of sharing, for the run's global batch.

    channels: task -> outputs of its head. The batch on a GPU is its part of the global batch, in
    `accumulate` parts, at the resolution where that has the most pixels.
    """
    with _default_dtype(DTYPES[config.precision]):
        network = meta_network(clip, config.dense, channels)  # fake tensors cannot be initialised
        with FakeTensorMode(allow_non_fake_inputs=True):
            network.to_empty(device="cpu")
            towers = [*blocks(network.clip.image), *blocks(network.clip.text)]
            plans = []
            for count in gpus:
                share = _share(network, towers, config, count)
                for parallel, weights in _weights(network, towers, config, count).items():
                    plans.append(MemoryPlan(gpus=count, parallel=parallel, **share, **weights))
    return plans


def _share(
    network: Network, towers: Sequence[nn.Module], config: TrainConfig, gpus: int
) -> dict[str, Any]:
    """Of one of `gpus` GPUs: the samples at a time, whether there are enough, the activations."""
    batches = batch_sizes(of_all_ranks(config, gpus).batch_size, config.resolution)
    shares = [-(-batch // gpus) for batch in batches]
    parts = [-(-share // min(config.accumulate, share)) for share in shares]
    pixels = [n * h * w for n, (h, w) in zip(parts, config.resolution, strict=True)]
    most = pixels.index(max(pixels))
    batch, size = parts[most], config.resolution[most]
    kept = measure_activations(network, towers, batch, size)
    return {"batch": batch, "size": size, "enough": min(batches) >= gpus, "activations": kept}


def _weights(
    network: Network, towers: Sequence[nn.Module], config: TrainConfig, gpus: int
) -> dict[str, dict[str, Any]]:
    """Way of sharing -> bytes of states and copies on one of `gpus` GPUs."""
    total = sum(p.numel() for p in network.parameters())
    sizes = sorted(sum(p.numel() for p in block.parameters()) for block in towers)
    half = config.precision != "fp32"
    states = total * (16 if config.ema is None else 20)
    ways = {"ddp": {"states": states, "copies": 2 * total * half}}
    if gpus > 1:
        gathered = total - sum(sizes) + sum(sizes[-2:])
        copies = gathered * (2 if half else 4) + sizes[-1] * 4  # and a block's gradient
        ways["fsdp2"] = {"states": states // gpus, "copies": copies}
    return ways


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def measure_activations(
    network: Any, towers: Sequence[nn.Module], batch: int, size: tuple[int, int]
) -> Activations:
    """What autograd saves of `batch` images (height, width), apart from the parameters.

    The forward pass keeps every block's insides, or with checkpointing every block's input and
    the insides of one block at a time.
    """
    kept = _Kept(network)
    hooks = [block.register_forward_pre_hook(kept.enter) for block in towers]
    hooks += [block.register_forward_hook(kept.leave) for block in towers]
    dtype = next(network.parameters()).dtype
    length = network.clip.tokenize([""]).shape[1]
    images = torch.empty(batch, 3, *size, dtype=dtype)
    try:
        with saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            out = network(images, torch.zeros(batch, length, dtype=torch.int64))
        del out
    finally:
        for hook in hooks:
            hook.remove()
    largest = max(kept.inside.values(), default=0)
    total = kept.outside + sum(kept.inside.values())
    return Activations(total, min(total, kept.outside + sum(kept.inputs.values()) + largest))


class _Kept:
    """Bytes that autograd saves, by block; a storage counts once, parameters never."""

    def __init__(self, network: nn.Module) -> None:
        self.seen = {p.untyped_storage()._cdata for p in network.parameters()}
        self.inside: dict[nn.Module, int] = {}
        self.inputs: dict[nn.Module, int] = {}
        self.outside = 0
        self.current: nn.Module | None = None

    def enter(self, block: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.current = block
        self.inputs[block] = arguments[0].untyped_storage().nbytes()

    def leave(self, *_: Any) -> None:
        self.current = None

    def pack(self, tensor: Tensor) -> Tensor:
        """Returned as it is: alive with the graph, no other storage takes its place."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.seen:
            self.seen.add(storage._cdata)
            if self.current is None:
                self.outside += storage.nbytes()
            else:
                before = self.inside.get(self.current, 0)
                self.inside[self.current] = before + storage.nbytes()
        return tensor


def plan_table(plans: Sequence[MemoryPlan]) -> list[str]:
    """Lines of text, in GB, for people."""
    head = f"{'GPUs':>5} {'shared by':>9} {'samples':>15} {'states':>8} {'copies':>8}"
    lines = [f"{head} {'activations':>12} {'total':>8} {'with checkpointing':>19}"]
    for plan in plans:
        samples = f"{plan.batch} x {plan.size[0]} x {plan.size[1]}"
        numbers = f"{plan.gpus:>5} {plan.parallel:>9} {samples:>15} "
        numbers += f"{plan.states / 1e9:>8.2f} {plan.copies / 1e9:>8.2f} "
        numbers += f"{plan.activations.kept / 1e9:>12.2f} {plan.total(False) / 1e9:>8.2f} "
        note = "" if plan.enough else "  refused: batch_size is too small"
        lines.append(numbers + f"{plan.total(True) / 1e9:>19.2f}" + note)
    return lines
