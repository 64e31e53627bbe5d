"""Builds every file of the playroom's model zoo from nothing: `cliptex playroom zoo`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from cliptex.console import say
from cliptex.experts.playroom import TASKS, load_playroom_expert
from cliptex.files import load_json, parse_json, save_tensors, sha256_file, write_atomic
from cliptex.metrics import AngularErrors, ConfusionMatrix, absrel
from cliptex.models.clip import Clip, load_clip, save_clip
from cliptex.models.config import ModelSpec
from cliptex.models.tokenizer import compact_vocabulary
from cliptex.pipeline.stages import Stage, StageReport, run_stages
from cliptex.pipeline.zoo_experts import (
    STUDIO_SIZE,
    StudioArrays,
    expert_class_ids,
    open_studio,
    render_studio,
    train_expert,
)
from cliptex.playroom.export import export_web
from cliptex.playroom.render import render
from cliptex.playroom.scene import EXPERT_THINGS, THINGS, sample_scene
from cliptex.recipes import playroom_pretrain
from cliptex.shards.dataset import ImageTextShards
from cliptex.training.loop import train
from cliptex.zeroshot.encode import ZeroShotConfig
from cliptex.zeroshot.images import run_zeroshot
from cliptex.zeroshot.prompts import PLAYROOM_TEMPLATES

WEB_SIZE = 64
SCORE_BATCH = 16
"""Pixels of the pretraining images: the low resolution that the paper's baseline suffers from."""


class ZooConfig(BaseModel):
    """How much of everything goes into the zoo."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    web_images: int = 20_000
    clip_steps: int = 1500
    clip_batch: int = 256
    studio_train: int = 6000
    studio_val: int = 300
    detector_steps: int = 1200
    dense_steps: int = 900
    detector_batch: int = 8
    dense_batch: int = 16
    seed: int = 0


PRESETS: Mapping[str, ZooConfig] = {
    "full": ZooConfig(),
    "short": ZooConfig(
        web_images=200,
        clip_steps=4,
        clip_batch=16,
        studio_train=40,
        studio_val=6,
        detector_steps=3,
        dense_steps=3,
    ),
}


def build_zoo(out: Path, preset: str = "full") -> StageReport:
    """Render, train and pack; the files to ship lie in `out/pack/`.

    Resumable at every stage and within each training. `preset` is "full" (what is shipped; about
    an hour on 2 cores) or "short" (a smoke run of the same path).
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r}: use one of {', '.join(PRESETS)}")
    return run_stages(zoo_stages(out, PRESETS[preset]), out)


def zoo_stages(out: Path, config: ZooConfig) -> list[Stage]:
    """The stages of the zoo, working below `out`."""
    seed = config.seed

    def web(folder: Path) -> None:
        export_web(folder, count=config.web_images, size=WEB_SIZE, seed=seed, split="pretrain")

    schedule: dict[str, Any] = {
        "steps": config.clip_steps,
        "warmup_steps": config.clip_steps // 10,
        "batch_size": config.clip_batch,
    }

    def clip(folder: Path) -> None:
        captions = captions_of(ImageTextShards(out / "web", cache=folder / "index"))
        words = compact_vocabulary(captions)
        train(playroom_pretrain(out / "web", vocabulary=words, seed=seed, **schedule), folder)

    def clip_again(folder: Path) -> None:
        start = ModelSpec(name=str(out / "clip" / "checkpoints" / "final"))
        recipe = playroom_pretrain(out / "web", seed=seed + 1, **schedule)
        train(recipe.model_copy(update={"model": start}), folder)

    def studio(split: str, count: int) -> Stage:
        return Stage(
            name=f"studio-{split}",
            config={"count": count, "size": STUDIO_SIZE, "seed": seed},
            run=lambda folder: render_studio(folder, split=split, count=count, seed=seed),
        )

    stages = [
        Stage("web", {"count": config.web_images, "size": WEB_SIZE, "seed": seed}, web),
        Stage("clip", {**schedule, "seed": seed}, clip, ("web",)),
        # A warm restart (Loshchilov and Hutter 2017): the same recipe once more, in another order.
        Stage("clip-again", {**schedule, "seed": seed + 1}, clip_again, ("clip",)),
        studio("train", config.studio_train),
        studio("val", config.studio_val),
    ]
    stages += [_expert_stage(task, out, config) for task in TASKS]
    stages.append(
        Stage(
            "pack",
            {},
            lambda folder: pack(out, folder, config),
            ("clip-again", *TASKS, "studio-val"),
        )
    )
    return stages


def captions_of(shards: ImageTextShards) -> list[str]:
    """All cleaned captions of a set of shards."""
    return [shards.read(shard, key).text for shard in shards.shards for key in shards.keys(shard)]


def _expert_stage(task: str, out: Path, config: ZooConfig) -> Stage:
    detector = task == "segmentation"
    steps = config.detector_steps if detector else config.dense_steps
    batch = config.detector_batch if detector else config.dense_batch

    def run(folder: Path) -> None:
        studio = open_studio(out / "studio-train")
        network = train_expert(task, studio, folder, steps=steps, batch=batch, seed=config.seed)
        write_expert(task, network, folder, steps=steps, batch=batch, config=config)

    settings = {"steps": steps, "batch": batch, "seed": config.seed}
    return Stage(task, settings, run, ("studio-train",))


def write_expert(
    task: str, network: nn.Module, folder: Path, *, steps: int, batch: int, config: ZooConfig
) -> None:
    """Half-precision weights and a card under `folder/TASK/`, as `load_playroom_expert` reads."""
    target = folder / task
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(half_state(network), target / "model.safetensors")
    card = {
        "task": task,
        "revision": "1",
        "data": f"playroom studio, {config.studio_train} rooms at {STUDIO_SIZE} px",
        "steps": steps,
        "batch": batch,
        "seed": config.seed,
        "classes": ["background", *EXPERT_THINGS] if task == "segmentation" else [],
        "sha256": sha256_file(target / "model.safetensors"),
    }
    _write_json(target / "card.json", card)


def half_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """State dict with floating-point tensors in float16, contiguous, on the CPU."""
    return {
        name: (x.half() if x.is_floating_point() else x).detach().cpu().contiguous()
        for name, x in network.state_dict().items()
    }


def pack(out: Path, folder: Path, config: ZooConfig) -> None:
    """Gather what is shipped in `folder`: fp16 weights, and cards with held-out metrics."""
    held_out = open_studio(out / "studio-val")
    for task in TASKS:
        shutil.copytree(out / task / task, folder / task, dirs_exist_ok=True)
        card_path = folder / task / "card.json"
        card = load_json(card_path, "a card of an expert")
        card["held_out"] = score_expert(task, folder, held_out)
        _write_json(card_path, card)
        say(f"expert {task}: {card['held_out']}")
    save_clip(
        load_clip(out / "clip-again" / "checkpoints" / "final"), folder / "clip", dtype="fp16"
    )
    card = {
        "task": "clip",
        "data": f"playroom web, {config.web_images} image-text pairs at {WEB_SIZE} px",
        "steps": 2 * config.clip_steps,
        "seed": config.seed,
        "sha256": sha256_file(folder / "clip" / "model.safetensors"),
        "last_training_loss": _last_loss(out / "clip-again" / "log.jsonl"),
        "held_out": score_clip(load_clip(folder / "clip"), seed=config.seed),
    }
    _write_json(folder / "clip" / "card.json", card)
    total = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    say(f"zoo: {total / 1e6:.1f} MB of weights in {folder}")


def score_expert(task: str, weights: Path, studio: StudioArrays) -> dict[str, float]:
    """Held-out metrics of a packed expert on rendered rooms: mIoU (%), AbsRel or a<30 (%)."""
    expert = load_playroom_expert(task, weights)
    images = list(studio.image)
    batches = (images[i : i + SCORE_BATCH] for i in range(0, len(images), SCORE_BATCH))
    predictions = [found.label for batch in batches for found in expert.predict(batch)]
    if task == "segmentation":
        confusion = ConfusionMatrix(1 + len(EXPERT_THINGS))
        table = expert_class_ids()
        for prediction, semantic in zip(predictions, studio.semantic, strict=True):
            confusion.update(prediction, table[semantic])
        return {"miou": confusion.miou()}
    if task == "depth":
        depths = np.asarray(studio.depth, dtype=np.float32)
        scores = [absrel(p, d) for p, d in zip(predictions, depths, strict=True)]
        return {"absrel": float(np.nanmean(scores))}
    errors = AngularErrors()
    for prediction, normals in zip(predictions, studio.normals, strict=True):
        errors.update(prediction, normals.astype(np.float32))
    return {"a30": errors.below(30.0)}


@dataclass(frozen=True)
class RenderedClasses:
    """Object-centred pictures of the `web` domain's validation split, rendered when asked for."""

    count: int
    seed: int
    name: str = "playroom-web-classes"
    classes: tuple[str, ...] = THINGS

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        label = index % len(THINGS)
        scene = sample_scene("web", "val", index, focus=THINGS[label], seed=self.seed)
        return render(scene, WEB_SIZE, WEB_SIZE).image, label


def score_clip(clip: Clip, *, seed: int, count: int = 240) -> dict[str, float]:
    """Zero-shot top-1 (%, chance 8.3) on pictures of its own domain that it has not seen."""
    config = ZeroShotConfig(resolution=WEB_SIZE, templates=PLAYROOM_TEMPLATES)
    outcome = run_zeroshot(clip, RenderedClasses(count, seed), config, model="clip")
    return {"zeroshot_top1": outcome.value("top1")}


def _last_loss(log: Path) -> float:
    last = parse_json(log.read_text(encoding="utf-8").splitlines()[-1])
    return float(last["loss_clip"])


def _write_json(path: Path, value: object) -> None:
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())
