"""The engine's own checks on GPUs: every precision and way of sharing learns as float32 does.

    python benchmarks/gpu_smoke.py [--device cpu] [--ranks N]

A small run on generated images is trained by each variant, through torchrun; its losses must stay
near those of one process in float32. Ends with status 1 where a variant strays or there is no GPU.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cliptex.labels.kinds import ScalarField
from cliptex.labels.manifest import Manifest
from cliptex.labels.writer import labels_from_arrays
from cliptex.models.config import ClipConfig, DenseConfig, ModelSpec
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter
from cliptex.training.config import TrainConfig, dump_config, load_config
from cliptex.training.log import LOG
from cliptex.training.loop import train

TOLERANCE = 0.1  # of the loss, at every step: half precision of a network that small is coarse
SAMPLES, STEPS = 32, 8

# Variant -> (whether it takes several ranks, changes of the configuration).
VARIANTS: dict[str, tuple[bool, dict[str, Any]]] = {
    "bf16": (False, {"precision": "bf16"}),
    "fp16": (False, {"precision": "fp16"}),
    "compile": (False, {"precision": "bf16", "compile": True}),
    "checkpointing": (False, {"precision": "bf16", "activation_checkpointing": True}),
    "ddp": (True, {"precision": "bf16"}),
    "ddp in parts": (True, {"precision": "bf16", "accumulate": 2}),
    "fsdp2": (True, {"precision": "bf16", "parallel": "fsdp2"}),
    "fsdp2 fp16": (True, {"precision": "fp16", "parallel": "fsdp2"}),
}


def write_data(folder: Path) -> TrainConfig:
    """Generated images, captions and depth below `folder`, and a float32 run on them."""
    draw = np.random.default_rng(0)
    with ShardWriter(folder / "data", prefix="smoke", samples_per_shard=SAMPLES) as writer:
        for number in range(SAMPLES):
            data = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (64, 64, 3), np.uint8)).save(data, "PNG")
            writer.add(f"{number:03d}", data.getvalue(), "png", f"picture {number}")
    shards = ImageTextShards(folder / "data")
    manifest = Manifest.of(
        ScalarField("1/m"), expert="noise", dataset_id=shards.dataset_id, source="generated"
    )
    depth = draw.uniform(1, 2, (SAMPLES, 32, 32)).astype(np.float32)
    labels_from_arrays(
        folder / "labels",
        manifest,
        shards,
        lambda shard: [(key, depth[int(key)]) for key in shards.keys(shard)],
    )
    vision = {"image_size": 64, "layers": 2, "width": 128, "head_width": 64, "patch_size": 16}
    text = {"context_length": 16, "width": 64, "heads": 1, "layers": 2}
    return TrainConfig(
        model=ModelSpec(config=ClipConfig(embed_dim=64, vision_cfg=vision, text_cfg=text)),
        data=folder / "data",
        labels=folder / "labels",
        tasks={"depth": "noise"},
        dense=DenseConfig(width=64, dropout=0.0),
        steps=STEPS,
        batch_size=9,
        resolution=((64, 64), (96, 64)),
        lr=1e-4,
        warmup_steps=2,
        precision="fp32",
        log_every=1,
        tensorboard=False,
    )


def losses(config: TrainConfig, ranks: int, out: Path, device: str) -> list[float]:
    """The loss of every step of a run on `ranks` processes."""
    dump_config(config, out.with_suffix(".yaml"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(ranks), __file__]
    command += ["--device", device, "--train-into", str(out)]
    subprocess.run(command, check=True)
    rows = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [row.get("loss", float("nan")) for row in rows]


def strays(found: list[float], expected: list[float]) -> str:
    """Why the losses are not those expected; empty where they are.

    Steps without a loss are those that float16 skipped while it looked for its scale.
    """
    finite = [loss for loss in found if np.isfinite(loss)]
    if len(found) != len(expected) or len(finite) < len(expected) // 2:
        return f"only {len(finite)} of {len(expected)} steps gave a loss"
    apart = [abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True) if np.isfinite(a)]
    return f"the loss is up to {max(apart):.1%} away" if max(apart) > TOLERANCE else ""


def main() -> int:
    """Run all variants, say how each went; 0 where all are well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--ranks", type=int, help="processes; by default one a GPU, at most 2")
    parser.add_argument("--only", choices=VARIANTS, action="append", help="by default all")
    parser.add_argument("--train-into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train_into is not None:
        train(load_config(options.train_into.with_suffix(".yaml")), options.train_into)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: none of the GPU checks was run")
        return 1
    ranks = options.ranks or min(2, max(1, torch.cuda.device_count()))
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_data(folder)
        expected = losses(config, 1, folder / "fp32", options.device)
        for variant in options.only or VARIANTS:
            several, changes = VARIANTS[variant]
            if several and ranks == 1:
                print(f"{variant}: NOT RUN, it needs two devices")
                continue
            changed = config.model_copy(update=changes)
            count = ranks if several else 1
            out = folder / variant.replace(" ", "-")
            wrong = strays(losses(changed, count, out, options.device), expected)
            failed += bool(wrong)
            print(f"{variant}, {count} process(es) on {options.device}: {wrong or 'ok'}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
