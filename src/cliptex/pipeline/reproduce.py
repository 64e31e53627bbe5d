"""The paper's evaluation in the playroom: CLIPTeX against CLIP-FT by every probe, over seeds.

The demo's world and trainings, and then all heads of the paper on each frozen encoder: linear,
DeepLabv3 and PSPNet for segmentation, depth and normals, all on one encoder pass per batch; Mask
R-CNN and SSD; the linear classifier; zero-shot classification and retrieval. The probes are the
small named recipes (`probes.small`, `probes.detection.config`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cliptex.datasets.protocol import DetectionDataset
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
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.dense import probe_task
from cliptex.probes.detection.config import DetectionProbe, small_mask_rcnn, small_ssd
from cliptex.probes.detection.pictures import draw_detections
from cliptex.probes.detection.run import DetectionOutcome, run_detection_probe
from cliptex.probes.examples import Examples, class_examples, dense_examples
from cliptex.probes.pictures import draw_bank
from cliptex.probes.run_bank import HeadOutcome, Naming, Storage, run_bank
from cliptex.probes.small import small_probes
from cliptex.probes.table8 import TASKS
from cliptex.results import append_results

TITLE = "CLIPTeX against CLIP-FT in the playroom, every probe"
MODELS = ("clip-ft", "cliptex")
DRAWN = "pspnet"
"""The head of dense tasks whose predictions are shown."""


class ReproduceConfig(BaseModel):
    """How much of everything: the demo's data and trainings, and the probes of each task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    demo: DemoConfig = PRESETS["full"]
    probes: dict[str, BankConfig] = {task: small_probes(task) for task in TASKS}
    detection: tuple[DetectionProbe, ...] = (small_mask_rcnn(), small_ssd())


def run_reproduce(out: Path, seeds: Sequence[int] = (0, 1, 2), jobs: int = 1) -> StageReport:
    """Everything below `out`; the page is `out`/report.html. Goes on where it was stopped.

    With `jobs` above one, trainings and probes of several models run side by side.
    """
    return run_stages(reproduce_stages(out, ReproduceConfig(), tuple(seeds)), out, jobs=jobs)


def reproduce_stages(out: Path, config: ReproduceConfig, seeds: tuple[int, ...]) -> list[Stage]:
    """The whole as a list of stages; data and trainings are the demo's own."""
    stages = data_stages(out, config.demo, controls=False)
    evaluations = []
    for seed in seeds:
        for model in MODELS:
            training = train_stage(out, config.demo, model, seed)
            probing = _probe_stage(out, config, model, seed, training.name)
            stages += [training, probing]
            evaluations.append(probing.name)
    parts = ("experts", *evaluations)
    report = Stage(
        "report",
        {"title": TITLE},
        lambda folder: collect(out, parts, title=TITLE, web=out / "web" / "shards"),
        parts,
    )
    return [*stages, report]


def _probe_stage(out: Path, config: ReproduceConfig, model: str, seed: int, training: str) -> Stage:
    def run(folder: Path) -> None:
        suite = home_suite(out / "home", config.demo.probe)
        checkpoint = out / training / "checkpoints" / "final"
        evaluate_all(suite, config, checkpoint, folder, model=model, seed=seed)

    settings = {"model": model, "seed": seed, **config.model_dump(mode="json", exclude={"demo"})}
    return Stage(f"all-probes-{model}-seed{seed}", settings, run, ("home", training))


def evaluate_all(
    suite: Suite, config: ReproduceConfig, checkpoint: Path, folder: Path, *, model: str, seed: int
) -> None:
    """Every probe of `config` on one model, into `folder`; a killed evaluation goes on."""
    (folder / RESULTS).unlink(missing_ok=True)  # of an attempt that was stopped
    clip = load_clip(checkpoint)
    sha256 = sha256_file(checkpoint / "model.safetensors")
    one = _OneModel(FrozenEncoder(clip.image), model, sha256, folder)
    for splits in suite.dense:
        task = probe_task(splits.train.kind, suite.probe).name
        bank = config.probes[task].model_copy(update={"things": splits.things, "seeds": (seed,)})
        sets = [dense_examples(s, bank) for s in (splits.train, splits.test)]
        outcomes = one.bank(sets[0], sets[1], bank, leak=splits.leak)
        for drawn in draw_bank(one.encoder, outcomes, splits.test, bank, PICTURES_PER_DATASET):
            if drawn.probe == DRAWN:
                drawn.save(one.pictures(drawn.dataset, drawn.probe))
    if suite.classes is not None:
        bank = config.probes["classification"].model_copy(update={"seeds": (seed,)})
        sets = [class_examples(s, bank) for s in (suite.classes.train, suite.classes.test)]
        one.bank(sets[0], sets[1], bank, leak=suite.classes.leak)
    if suite.objects is not None:
        for probe in config.detection:
            one.detection(suite.objects, probe.model_copy(update={"seeds": (seed,)}))
    zero_shot(suite, clip, folder, model=model, checkpoint=sha256, seed=seed)


@dataclass(frozen=True)
class _OneModel:
    encoder: FrozenEncoder
    model: str
    checkpoint: str
    folder: Path

    def bank(
        self, train: Examples, test: Examples, config: BankConfig, *, leak: bool
    ) -> list[HeadOutcome]:
        """All heads of one data set, trained together and scored once."""
        outcomes = run_bank(
            self.encoder,
            train,
            None,
            test,
            config,
            naming=Naming(model=self.model, checkpoint=self.checkpoint, leak=leak),
            storage=Storage(state=self.folder / "state" / train.name),
        )
        for outcome in outcomes:
            self._keep(outcome)
        return outcomes

    def detection(self, sets: Splits[DetectionDataset], config: DetectionProbe) -> None:
        """One detection probe, with pictures of what it finds."""
        outcome = run_detection_probe(
            self.encoder,
            sets.train,
            sets.test,
            config,
            model=self.model,
            checkpoint=self.checkpoint,
            leak=sets.leak,
            folder=self.folder / "state" / config.name,
        )
        self._keep(outcome)
        if outcome.heads:
            count = PICTURES_PER_DATASET
            drawn = draw_detections(self.encoder, outcome, sets.test, config, count)
            drawn.save(self.pictures(drawn.dataset, drawn.probe))

    def pictures(self, dataset: str, probe: str) -> Path:
        """Where pictures of one probe lie, for `collect`."""
        return self.folder / PICTURES / f"{dataset}{OF_PROBE}{probe}"

    def _keep(self, outcome: HeadOutcome | DetectionOutcome) -> None:
        append_results(self.folder / RESULTS, outcome.results)
        outcome.save_per_image(self.folder / PER_IMAGE)
