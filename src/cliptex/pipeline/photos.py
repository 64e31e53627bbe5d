"""The same path on real photographs: Flickr8k images, public ONNX experts, real benchmarks."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cliptex.datasets.captions import Karpathy
from cliptex.datasets.folders import ImageFolder
from cliptex.datasets.normals import NormalsFolder
from cliptex.datasets.nyu import NyuDepth
from cliptex.datasets.protocol import require
from cliptex.datasets.voc import VocSegmentation
from cliptex.experts.load import load_expert
from cliptex.files import sha256_file
from cliptex.labelling.engine import label_shards
from cliptex.models.clip import build_clip, save_clip
from cliptex.models.config import ModelSpec
from cliptex.models.tokenizer import compact_vocabulary
from cliptex.pipeline.collect import collect
from cliptex.pipeline.stages import Stage, StageReport, run_stages
from cliptex.pipeline.suite import Splits, Suite, evaluate
from cliptex.probes.config import FastConfig
from cliptex.recipes import photos
from cliptex.shards.captions import clean_caption
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.importers import import_karpathy
from cliptex.training.config import TrainConfig
from cliptex.training.loop import train

IMAGE_SIZE = 224
TITLE = "CLIPTeX on photographs"
CARDS = ("deeplab_voc21", "nyu_depth", "nyu_normals")
EXPERTS = {"segmentation": "deeplab-voc21", "depth": "nyu-depth", "normals": "nyu-normals"}
"""Task -> name of the expert as its card gives it, which is its folder among the labels."""
MODELS = ("init", "clip-ft", "cliptex")
LAYOUT = """  flickr8k-mini/{dataset_flickr8k.json,images/}
  VOCdevkit/VOC2012/   nyu-mini/   imagenette-mini/
  experts/{deeplab_voc21,nyu_depth,nyu_normals}.onnx
  experts/efficientnet_lite0.safetensors"""


class PhotosConfig(BaseModel):
    """How much the photo run does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = 80
    probe: FastConfig = FastConfig(resolution=IMAGE_SIZE, precision="bf16")


def run_photos(
    data_root: Path, out: Path, seed: int = 0, config: PhotosConfig | None = None
) -> StageReport:
    """Import, label, train twice, probe and report; the page is `out`/report.html.

    The experts learnt from VOC and NYU images, so every such row carries a leak mark; the starting
    point has an untrained text tower and is called `init`. Resumable like every run of stages.
    Raises FileNotFoundError where `data_root` lacks a part.
    """
    data_root = data_root.resolve()  # stages are keyed by paths, too
    for part in ("flickr8k-mini", "VOCdevkit", "nyu-mini", "imagenette-mini", "experts"):
        require(data_root / part, LAYOUT)
    stages = photos_stages(data_root, out, config or PhotosConfig(), seed)
    return run_stages(stages, out)


def photos_stages(data_root: Path, out: Path, config: PhotosConfig, seed: int) -> list[Stage]:
    """The photo run as a list of stages, working below `out`."""
    flickr, weights = data_root / "flickr8k-mini", data_root / "experts"
    tower = weights / "efficientnet_lite0.safetensors"
    web = out / "web" / "shards"
    words = flickr_vocabulary(flickr)

    def label(folder: Path) -> None:
        shards = ImageTextShards(web, cache=out / "index")
        for card in CARDS:
            label_shards(shards, [load_expert(card, weights=weights)], folder)

    def start(folder: Path) -> None:
        spec = photos(web, tower, vocabulary=words, seed=seed).model
        assert isinstance(spec, ModelSpec)
        save_clip(build_clip(spec), folder / "checkpoints" / "final")

    hashes = {name: sha256_file(weights / f"{name}.onnx") for name in CARDS}
    stages = [
        Stage(
            "web",
            {"data": str(flickr.resolve()), "split": "train"},
            lambda _: import_karpathy(flickr / "dataset_flickr8k.json", flickr / "images", web),
        ),
        Stage("labels", {"weights": hashes}, label, ("web",)),
        Stage(
            "train-init",
            {"tower": sha256_file(tower), "words": len(words), "seed": seed},
            start,
            ("web",),
        ),
    ]
    for model in MODELS[1:]:
        recipe = photos(
            web,
            tower,
            out / "labels" if model == "cliptex" else None,
            tasks=EXPERTS if model == "cliptex" else {},
            vocabulary=words,
            steps=config.steps,
            warmup_steps=config.steps // 8,
            seed=seed,
        )
        stages.append(_train_stage(model, recipe))
    stages += [_evaluate_stage(data_root, out, model, seed, config) for model in MODELS]
    parts = tuple(f"probe-{model}" for model in MODELS)
    stages.append(
        Stage(
            "report",
            {"title": TITLE},
            lambda _: collect(out, parts, web=web, title=TITLE, start="init"),
            (*parts, "labels"),
        )
    )
    return stages


def flickr_vocabulary(flickr: Path) -> list[int]:
    """Byte-pair ids of the training captions: a text tower that starts from nothing can learn
    no others."""
    pairs = Karpathy(flickr / "dataset_flickr8k.json", "train", images=flickr / "images")
    return compact_vocabulary(clean_caption(c) for texts in pairs.captions for c in texts)


def _train_stage(model: str, recipe: TrainConfig) -> Stage:
    settings = recipe.model_dump(mode="json", exclude={"data", "labels"})
    depends = ("web", "labels") if recipe.tasks else ("web",)
    return Stage(f"train-{model}", settings, lambda folder: train(recipe, folder), depends)


def _evaluate_stage(
    data_root: Path, out: Path, model: str, seed: int, config: PhotosConfig
) -> Stage:
    def run(folder: Path) -> None:
        checkpoint = out / f"train-{model}" / "checkpoints" / "final"
        evaluate(photo_suite(data_root, config.probe), checkpoint, folder, model=model, seed=seed)

    settings = {"probe": config.probe.model_dump(mode="json"), "seed": seed}
    return Stage(f"probe-{model}", settings, run, (f"train-{model}",))


def photo_suite(data_root: Path, probe: FastConfig) -> Suite:
    """VOC, NYU, Imagenette and Flickr8k as they lie below `data_root`."""
    voc, nyu = data_root / "VOCdevkit", data_root / "nyu-mini"
    nette, flickr = data_root / "imagenette-mini", data_root / "flickr8k-mini"
    classes = [ImageFolder(nette, s, name="imagenette") for s in ("train", "val")]

    def depth(split: str) -> NyuDepth:
        return NyuDepth(nyu, split, depths="rawDepths")  # as Lasinger et al. score it

    return Suite(
        probe=probe,
        dense=(
            Splits(
                train=VocSegmentation(voc, "train_aug"),
                val=None,
                test=VocSegmentation(voc, "val"),
                leak=True,
            ),
            Splits(train=depth("train"), val=None, test=depth("test"), leak=True),
            Splits(
                train=NormalsFolder(nyu, "train"),
                val=None,
                test=NormalsFolder(nyu, "test"),
                leak=True,
            ),
        ),
        classes=Splits(train=classes[0], val=None, test=classes[1]),
        captions=Karpathy(
            flickr / "dataset_flickr8k.json", "test", images=flickr / "images", name="flickr8k"
        ),
    )
