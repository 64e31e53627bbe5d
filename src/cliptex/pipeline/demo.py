"""The demo: the paper's comparison in the playroom, from nothing to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cliptex.datasets.ade20k import Ade20k
from cliptex.datasets.captions import Karpathy
from cliptex.datasets.coco import CocoInstances
from cliptex.datasets.folders import ImageFolder
from cliptex.datasets.normals import NormalsFolder
from cliptex.datasets.nyu import NyuDepth
from cliptex.datasets.voc import VocSegmentation
from cliptex.experts.load import load_expert
from cliptex.experts.playroom import TASKS, WEIGHTS
from cliptex.files import sha256_file
from cliptex.labelling.engine import label_shards
from cliptex.labelling.options import LabelOptions
from cliptex.labelling.placebo import write_placebo
from cliptex.labels.reader import LabelReader
from cliptex.pipeline.collect import collect
from cliptex.pipeline.stages import Stage, StageReport, run_stages
from cliptex.pipeline.suite import Splits, Suite, evaluate
from cliptex.pipeline.truth import score_labels, write_perfect_labels
from cliptex.playroom.caption import SYNONYMS
from cliptex.playroom.export import HomeSizes, export_home, export_web
from cliptex.playroom.scene import THINGS
from cliptex.probes.config import FastConfig
from cliptex.recipes import playroom
from cliptex.results import append_results
from cliptex.shards.dataset import ImageTextShards
from cliptex.training.config import TrainConfig
from cliptex.training.loop import train
from cliptex.zeroshot.prompts import PLAYROOM_TEMPLATES

IMAGE_SIZE = 128
TITLE = "CLIPTeX in the playroom"
MODELS = ("clip", "clip-ft", "cliptex")
CONTROLS = ("cliptex-perfect", "cliptex-placebo")


class DemoConfig(BaseModel):
    """How much of everything a preset of the demo does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    web_images: int = 4000
    home: HomeSizes = HomeSizes()
    steps: int = 400
    batch_size: int = 48
    probe: FastConfig = FastConfig(resolution=IMAGE_SIZE, precision="bf16")


PRESETS: Mapping[str, DemoConfig] = {
    "full": DemoConfig(),
    "quick": DemoConfig(
        web_images=500,
        home=HomeSizes(
            train=120, val=40, test=120, classes_train=120, classes_val=48, classes_test=120
        ),
        steps=30,
        probe=FastConfig(
            resolution=IMAGE_SIZE,
            precision="bf16",
            epochs=4,
            min_steps=0,
            learning_rates=(0.03, 0.3),
        ),
    ),
}


def run_demo(
    out: Path,
    preset: str = "full",
    controls: bool = False,
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
) -> StageReport:
    """Render, label, train, probe and report; the page is `out`/report.html.

    `controls` adds two trainings: with perfect labels (the renderer's truth) and with placebo
    labels (those of other images). Every seed trains and probes anew on the same rendered world;
    a seed decides the order of samples, crops, the heads' first weights and the probes. With `jobs`
    above one, so many stages run side by side.
    Run again after an interruption to go on. Raises ValueError for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r}: use one of {', '.join(PRESETS)}")
    return run_stages(demo_stages(out, PRESETS[preset], controls, tuple(seeds)), out, jobs=jobs)


def demo_stages(
    out: Path, config: DemoConfig, controls: bool, seeds: tuple[int, ...]
) -> list[Stage]:
    """The demo as a list of stages, working below `out`."""
    models = MODELS + (CONTROLS if controls else ())
    stages = data_stages(out, config, controls)
    evaluations = []
    for seed in seeds:
        for model in models:
            checkpoint = WEIGHTS / "clip"
            depends = ["home"]
            if model != "clip":
                stages.append(train_stage(out, config, model, seed))
                depends.append(stages[-1].name)
                checkpoint = out / stages[-1].name / "checkpoints" / "final"
            stages.append(_evaluate_stage(out, config, model, seed, checkpoint, depends))
            evaluations.append(stages[-1].name)
    parts = ("experts", *evaluations)
    stages.append(
        Stage(
            "report",
            {"title": TITLE},
            lambda folder: collect(out, parts, title=TITLE, web=out / "web" / "shards"),
            parts,
        )
    )
    return stages


def data_stages(out: Path, config: DemoConfig, controls: bool) -> list[Stage]:
    """Rendering and labelling; with `controls` also perfect and placebo labels."""
    web, truth = out / "web" / "shards", out / "web" / "truth"

    def shards() -> ImageTextShards:
        return ImageTextShards(web, cache=out / "web" / "index")

    def label(folder: Path) -> None:
        experts = [load_expert(f"playroom:{task}") for task in TASKS]
        label_shards(shards(), experts, folder, LabelOptions(batch_size=16))

    def score(folder: Path) -> None:
        path = folder / "results.jsonl"
        path.unlink(missing_ok=True)  # of an attempt that was stopped
        append_results(path, score_labels(shards(), truth, out / "labels", seed=0))

    def placebo(folder: Path) -> None:
        for task in TASKS:
            reader = LabelReader(out / "labels" / f"playroom-{task}")
            write_placebo(reader, shards(), folder, seed=0, name=f"placebo-{task}")

    weights = {task: sha256_file(WEIGHTS / task / "model.safetensors") for task in TASKS}
    stages = [
        Stage(
            "web",
            {"images": config.web_images, "size": IMAGE_SIZE},
            lambda folder: export_web(
                web, count=config.web_images, size=IMAGE_SIZE, truth=truth, samples_per_shard=250
            ),
        ),
        Stage(
            "home",
            {"sizes": asdict(config.home), "size": IMAGE_SIZE},
            lambda folder: export_home(folder, sizes=config.home, size=IMAGE_SIZE),
        ),
        Stage("labels", {"weights": weights}, label, ("web",)),
        Stage("experts", {}, score, ("labels",)),
    ]
    if controls:
        perfect = Stage(
            "labels-perfect",
            {},
            lambda folder: write_perfect_labels(shards(), truth, folder),
            ("web",),
        )
        stages += [perfect, Stage("labels-placebo", {"seed": 0}, placebo, ("labels",))]
    return stages


def training_config(out: Path, config: DemoConfig, model: str, seed: int) -> TrainConfig:
    """The recipe of one of the demo's trainings; all share samples, order, crops and schedule."""
    labels: dict[str, tuple[str, str]] = {
        "cliptex": ("labels", "playroom"),
        "cliptex-perfect": ("labels-perfect", "perfect"),
        "cliptex-placebo": ("labels-placebo", "placebo"),
    }
    data = out / "web" / "shards"
    schedule: dict[str, Any] = {
        "steps": config.steps,
        "warmup_steps": config.steps // 8,
        "batch_size": config.batch_size,
        "seed": seed,
    }
    if model == "clip-ft":
        return playroom(data, **schedule)
    folder, prefix = labels[model]
    tasks = {task: f"{prefix}-{task}" for task in TASKS}
    return playroom(data, out / folder, tasks=tasks, **schedule)


def train_stage(out: Path, config: DemoConfig, model: str, seed: int) -> Stage:
    """The training of `model` from `seed`, into `out`/train-MODEL-seedN."""
    recipe = training_config(out, config, model, seed)
    settings = recipe.model_dump(mode="json", exclude={"data", "labels"})
    settings["start"] = sha256_file(WEIGHTS / "clip" / "model.safetensors")
    depends = ("web",) if recipe.labels is None else ("web", recipe.labels.name)
    return Stage(
        f"train-{model}-seed{seed}", settings, lambda folder: train(recipe, folder), depends
    )


def _evaluate_stage(
    out: Path,
    config: DemoConfig,
    model: str,
    seed: int,
    checkpoint: Path,
    depends: Sequence[str],
) -> Stage:
    def run(folder: Path) -> None:
        suite = home_suite(out / "home", config.probe)
        evaluate(suite, checkpoint, folder, model=model, seed=seed)

    settings = {"probe": config.probe.model_dump(mode="json"), "model": model, "seed": seed}
    if model == "clip":
        settings["start"] = sha256_file(WEIGHTS / "clip" / "model.safetensors")
    return Stage(f"probe-{model}-seed{seed}", settings, run, tuple(depends))


def home_suite(home: Path, probe: FastConfig, test: str = "test") -> Suite:
    """The playroom's downstream sets; `test` may name "val" while something is being designed."""
    nyu, classes, captions = home / "nyu", home / "classes", home / "captions"
    ade = {"train": "training", "val": "validation", "test": "test"}

    def voc(split: str) -> VocSegmentation:
        return VocSegmentation(home / "VOCdevkit", split, name="playroom-voc")

    def ade20k(split: str) -> Ade20k:
        return Ade20k(home / "ADEChallengeData2016", ade[split], name="playroom-ade")

    def depth(split: str) -> NyuDepth:
        return NyuDepth(nyu, split, depths="rawDepths", name="playroom-depth")

    def normals(split: str) -> NormalsFolder:
        return NormalsFolder(nyu, split, name="playroom-normals")

    def folder(split: str) -> ImageFolder:
        return ImageFolder(classes, split, name="playroom-classes")

    def coco(split: str) -> CocoInstances:
        return CocoInstances(home / "coco", split, name="playroom-coco")

    return Suite(
        probe=probe,
        dense=(
            Splits(train=voc("train_aug"), val=voc("val"), test=voc(test)),
            Splits(train=ade20k("train"), val=ade20k("val"), test=ade20k(test), things=THINGS),
            Splits(train=depth("train"), val=depth("val"), test=depth(test)),
            Splits(train=normals("train"), val=normals("val"), test=normals(test)),
        ),
        classes=Splits(train=folder("train"), val=folder("val"), test=folder(test)),
        objects=Splits(train=coco("train"), val=coco("val"), test=coco(test)),
        captions=Karpathy(
            captions / "dataset_playroom.json",
            test,
            images=captions / "images",
            name="playroom-captions",
        ),
        templates=PLAYROOM_TEMPLATES,
        prompts={name: tuple(dict.fromkeys(words)) for name, words in SYNONYMS.items()},
    )
