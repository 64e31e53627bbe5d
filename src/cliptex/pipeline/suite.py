"""Evaluation of one CLIP on a suite of data sets: every probe, zero-shot, and sample pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from cliptex.datasets.protocol import (
    CaptionedImages,
    DenseDataset,
    DetectionDataset,
    LabelledImages,
)
from cliptex.files import sha256_file
from cliptex.models.clip import Clip, load_clip
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import FastConfig
from cliptex.probes.features import FeatureMemory
from cliptex.probes.method import Storage
from cliptex.probes.outcome import Naming
from cliptex.probes.train import run_probe
from cliptex.probes.visualise import visualise
from cliptex.results import append_results
from cliptex.zeroshot.encode import ZeroShotConfig
from cliptex.zeroshot.images import run_retrieval, run_zeroshot

RESULTS, PER_IMAGE, PICTURES = "results.jsonl", "per_image", "pictures"
PICTURES_PER_DATASET = 6
FEATURE_MEMORY_BYTES = 2 << 30

D = TypeVar("D")


@dataclass(frozen=True, kw_only=True)
class Splits(Generic[D]):
    """One benchmark: probes learn on `train`, choose on `val` (None: a part of train), and are
    scored on `test`. `things` restricts `miou_things`; `leak` marks what an expert learnt from."""

    train: D
    val: D | None
    test: D
    things: tuple[str, ...] | None = None
    leak: bool = False


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a model is measured on. `prompts` maps class names to the words for zero-shot.

    `objects` is read by `pipeline.reproduce` alone: detection takes minutes.
    """

    probe: FastConfig
    dense: tuple[Splits[DenseDataset], ...] = ()
    classes: Splits[LabelledImages] | None = None
    objects: Splits[DetectionDataset] | None = None
    captions: CaptionedImages | None = None
    templates: tuple[str, ...] = ("a photo of a {}.",)
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    zero_shot: bool = True


def evaluate(suite: Suite, checkpoint: Path, folder: Path, *, model: str, seed: int) -> None:
    """Measure one model on the whole suite, into `folder`/results.jsonl.

    Also writes per-image scores (`per_image/*.npz`) and pictures of the first test images with
    the probes' predictions (`pictures/DATASET/`).
    """
    results = folder / RESULTS
    results.unlink(missing_ok=True)  # of an attempt that was stopped
    clip = load_clip(checkpoint)
    sha256 = sha256_file(checkpoint / "model.safetensors")
    encoder = FrozenEncoder(clip.image)
    storage = Storage(memory=FeatureMemory(FEATURE_MEMORY_BYTES))
    config = suite.probe.model_copy(update={"seeds": (seed,)})
    sets = (*suite.dense, *(() if suite.classes is None else (suite.classes,)))
    for splits in sets:
        outcomes = run_probe(
            encoder,
            splits.train,
            splits.val,
            splits.test,
            config.model_copy(update={"things": splits.things}),
            naming=Naming(model=model, checkpoint=sha256, leak=splits.leak),
            storage=storage,
        )
        for outcome in outcomes:
            if outcome.error:
                raise ValueError(outcome.error)
            append_results(folder / RESULTS, outcome.results)
            outcome.save_per_image(folder / PER_IMAGE)
        for drawn in visualise(encoder, outcomes, splits.test, PICTURES_PER_DATASET):
            drawn.save(folder / PICTURES / drawn.dataset)
    zero_shot(suite, clip, folder, model=model, checkpoint=sha256, seed=seed)


def zero_shot(
    suite: Suite, clip: Clip, folder: Path, *, model: str, checkpoint: str, seed: int
) -> None:
    """Zero-shot classification and retrieval, without training."""
    config = ZeroShotConfig(resolution=suite.probe.resolution, templates=suite.templates, seed=seed)
    outcomes = []
    if suite.zero_shot and suite.classes is not None:
        test = suite.classes.test
        words = [suite.prompts.get(name, (name.replace("_", " "),)) for name in test.classes]
        outcomes.append(
            run_zeroshot(
                clip,
                test,
                config,
                model=model,
                checkpoint=checkpoint,
                classes=words,
                leak=suite.classes.leak,
            )
        )
    if suite.captions is not None:
        outcomes.append(
            run_retrieval(clip, suite.captions, config, model=model, checkpoint=checkpoint)
        )
    for outcome in outcomes:
        append_results(folder / RESULTS, outcome.results)
        outcome.save_per_image(folder / PER_IMAGE)
