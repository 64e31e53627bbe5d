"""What a run would do, before it does it: its numbers, and its first batch as pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from cliptex.data.joined import Batch, JoinedDataset
from cliptex.files import check_can_make, write_atomic
from cliptex.labels.kinds import Kind, ScalarField, UnitVector
from cliptex.losses import DenseTargets
from cliptex.models.clip import describe_clip
from cliptex.models.device import pick_device
from cliptex.training.config import TrainConfig, as_json
from cliptex.training.network import FlopCount, meta_network
from cliptex.training.plan import parameters_by_part, plan_memory, plan_table
from cliptex.training.setup import device_peak, open_data

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
    check_can_make(out, "the folder of the run (--out)")
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
    match kind:
        case ScalarField():  # (1, H, W)
            return kind.draw(np.where(valid, target[0], np.nan).astype(np.float32))
        case UnitVector():  # (3, H, W)
            return kind.draw(target.transpose(1, 2, 0) * valid[..., None])
        case _:  # (H, W)
            return kind.draw(target.astype(kind.dtype))


def _figure(image: np.ndarray, caption: str) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    source = base64.b64encode(data.getvalue()).decode()
    label = html.escape(caption)
    return (
        f'<figure><img alt="{label}" src="data:image/png;base64,{source}">'
        f"<figcaption>{label}</figcaption></figure>"
    )
