"""The paper's evaluation in the playroom: CLIPTeX against CLIP-FT by every probe, over seeds.

The demo's world and trainings, and then all heads of the paper on each frozen encoder: linear,
DeepLabv3 and PSPNet for segmentation, depth and normals, all on one encoder pass per batch; Mask
R-CNN and SSD; the linear classifier; zero-shot classification and retrieval. The probes are the
small named recipes of `probes.recipes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cliptex.experts.playroom import WEIGHTS
from cliptex.files import sha256_file
from cliptex.models.clip import load_clip
from cliptex.models.encoder import FrozenEncoder
from cliptex.pipeline.collect import OF_PROBE, collect
from cliptex.pipeline.demo import PRESETS, DemoConfig, data_stages, home_suite, train_stage
from cliptex.pipeline.stages import Stage, StageReport, run_stages
from cliptex.pipeline.suite import (
    PER_IMAGE,
    PICTURES,
    PICTURES_PER_DATASET,
    RESULTS,
    Splits,
    Suite,
    zero_shot,
)
from cliptex.probes.baselines import (
    MEAN,
    PIXELS,
    RANDOM,
    control_encoders,
    control_of,
    in_place_of,
)
from cliptex.probes.baselines import mean_rows as mean_answer
from cliptex.probes.config import DetectionConfig, GroupConfig, ProbeConfig
from cliptex.probes.method import Storage
from cliptex.probes.outcome import Naming
from cliptex.probes.recipes import TASKS, small, small_mask_rcnn, small_ssd
from cliptex.probes.task import task_of
from cliptex.probes.train import run_probe
from cliptex.probes.visualise import visualise
from cliptex.results import Result, append_results, read_results

TITLE = "CLIPTeX against CLIP-FT in the playroom, every probe"
MODELS = ("clip-ft", "cliptex")
DRAWN = "pspnet"
"""The head of dense tasks whose predictions are shown."""


class ReproduceConfig(BaseModel):
    """How much of everything: the demo's data and trainings, and the probes of each task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    demo: DemoConfig = PRESETS["full"]
    probes: dict[str, GroupConfig] = {task: small(task) for task in TASKS}
    detection: tuple[DetectionConfig, ...] = (small_mask_rcnn(), small_ssd())


def run_reproduce(
    out: Path, seeds: Sequence[int] = (0, 1, 2), *, controls: bool = False, jobs: int = 1
) -> StageReport:
    """Everything below `out`; the page is `out`/report.html. Goes on where it was stopped.

    `controls` probes what has learnt nothing, with the first seed. With `jobs` above one,
    trainings and probes of several models run side by side.
    """
    stages = reproduce_stages(out, ReproduceConfig(), tuple(seeds), controls)
    return run_stages(stages, out, jobs=jobs)


def reproduce_stages(
    out: Path, config: ReproduceConfig, seeds: tuple[int, ...], controls: bool = False
) -> list[Stage]:
    """The whole as a list of stages; data and trainings are the demo's own."""
    stages = data_stages(out, config.demo, controls=False)
    parts = ["experts"]
    for seed in seeds:
        for model in MODELS:
            training = train_stage(out, config.demo, model, seed)
            probing = _probe_stage(out, config, model, seed, training.name)
            stages += [training, probing]
            parts.append(probing.name)
    if controls:
        found = _control_stages(out, config, seeds[0], like=parts[1])
        stages += found
        parts += [stage.name for stage in found]
    report = Stage(
        "report",
        {"title": TITLE},
        lambda folder: collect(out, parts, title=TITLE, web=out / "web" / "shards"),
        tuple(parts),
    )
    return [*stages, report]


def _probe_stage(out: Path, config: ReproduceConfig, model: str, seed: int, training: str) -> Stage:
    def run(folder: Path) -> None:
        suite = home_suite(out / "home", config.demo.probe)
        checkpoint = out / training / "checkpoints" / "final"
        evaluate_all(suite, config, checkpoint, folder, model=model, seed=seed)

    settings = _settings(config, model, seed)
    return Stage(f"all-probes-{model}-seed{seed}", settings, run, ("home", training))


def _settings(config: ReproduceConfig, model: str, seed: int) -> dict[str, object]:
    return {"model": model, "seed": seed, **config.model_dump(mode="json", exclude={"demo"})}


def _control_stages(out: Path, config: ReproduceConfig, seed: int, like: str) -> list[Stage]:
    """Random weights and pixels by every trained probe; the mean answer in the rows of `like`."""

    def probe(name: str, folder: Path) -> None:
        (folder / RESULTS).unlink(missing_ok=True)  # of an attempt that was stopped
        encoder = control_encoders(load_clip(WEIGHTS / "clip"), seed)[name]
        suite = home_suite(out / "home", config.demo.probe)
        facts = control_of("clip", sha256_file(WEIGHTS / "clip" / "model.safetensors"))
        one = _OneModel(encoder, name, "", folder, facts)
        for splits, probe in _probes(suite, config, seed):
            one.probe(splits, probe)

    def answer_mean(folder: Path) -> None:
        (folder / RESULTS).unlink(missing_ok=True)
        rows = mean_rows(home_suite(out / "home", config.demo.probe), config)
        append_results(folder / RESULTS, in_place_of(rows, read_results(out / like / RESULTS)))

    stages = [
        Stage(f"all-probes-{name}", _settings(config, name, seed), partial(probe, name), ("home",))
        for name in (RANDOM, PIXELS)
    ]
    mean = Stage("mean-answers", _settings(config, MEAN, seed), answer_mean, ("home", like))
    return [*stages, mean]


def mean_rows(suite: Suite, config: ReproduceConfig) -> list[Result]:
    """The mean answer to every dense task, the commonest class, and the mean box of each class."""
    sets = {id(splits): (splits, probe) for splits, probe in _probes(suite, config, seed=0)}
    rows = [mean_answer(splits.train, splits.test, probe) for splits, probe in sets.values()]
    return [row for found in rows for row in found]


def evaluate_all(
    suite: Suite, config: ReproduceConfig, checkpoint: Path, folder: Path, *, model: str, seed: int
) -> None:
    """Every probe of `config` on one model, into `folder`; a killed evaluation goes on."""
    (folder / RESULTS).unlink(missing_ok=True)  # of an attempt that was stopped
    clip = load_clip(checkpoint)
    sha256 = sha256_file(checkpoint / "model.safetensors")
    one = _OneModel(FrozenEncoder(clip.image), model, sha256, folder)
    for splits, probe in _probes(suite, config, seed):
        one.probe(splits, probe)
    zero_shot(suite, clip, folder, model=model, checkpoint=sha256, seed=seed)


def _probes(
    suite: Suite, config: ReproduceConfig, seed: int
) -> Iterator[tuple[Splits[Any], ProbeConfig]]:
    """Every data set with each of its probes, for one seed."""
    for splits in (*suite.dense, *(() if suite.classes is None else (suite.classes,))):
        group = config.probes[task_of(splits.train, suite.probe).name]
        yield splits, group.model_copy(update={"things": splits.things, "seeds": (seed,)})
    if suite.objects is not None:
        for detector in config.detection:
            yield suite.objects, detector.model_copy(update={"seeds": (seed,)})


@dataclass(frozen=True)
class _OneModel:
    encoder: FrozenEncoder
    model: str
    checkpoint: str
    folder: Path
    facts: Mapping[str, object] = field(default_factory=dict)
    """What its rows say beside what the probes put there."""

    def probe(self, splits: Splits[Any], config: ProbeConfig) -> None:
        """All heads of one data set, trained together and scored once, with pictures."""
        outcomes = run_probe(
            self.encoder,
            splits.train,
            None,
            splits.test,
            config,
            naming=Naming(model=self.model, checkpoint=self.checkpoint, leak=splits.leak),
            storage=Storage(state=self.folder / "state" / splits.train.name),
        )
        for outcome in outcomes:
            rows = [
                row.model_copy(update={"protocol": {**row.protocol, **self.facts}})
                for row in outcome.results
            ]
            append_results(self.folder / RESULTS, rows)
            outcome.save_per_image(self.folder / PER_IMAGE)
        shown = [one for one in outcomes if one.key.head == DRAWN or one.task is None]
        for drawn in visualise(self.encoder, shown, splits.test, PICTURES_PER_DATASET):
            drawn.save(self.pictures(drawn.dataset, drawn.probe))

    def pictures(self, dataset: str, probe: str) -> Path:
        """Where pictures of one probe lie, for `collect`."""
        return self.folder / PICTURES / f"{dataset}{OF_PROBE}{probe}"
