"""`cliptex probe`: one model on one data set, rows appended to a file as soon as they are there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, arg

from cliptex.cli.arguments import Layout
from cliptex.cli.costing import cost_text
from cliptex.cli.help import verb
from cliptex.cli.rows import RANDOM as UNTRAINED
from cliptex.cli.rows import check_writable, checkpoint_of, process_of, record, record_rows
from cliptex.console import say
from cliptex.files import file_name
from cliptex.probes.options import ProbeOptions

if TYPE_CHECKING:
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.outcome import Naming, ProbeOutcome
    from cliptex.results import Result


@dataclass(frozen=True, kw_only=True)
class Options(ProbeOptions):
    """Those of the library; the command line also shows and checks the choices of layouts."""

    dataset: Layout | None = None


@verb(
    "cliptex probe --model playroom --dataset voc --root runs/demo/home/VOCdevkit"
    " --resolution 128 --out results.jsonl",
    "cliptex probe --model open_clip:ViT-B-16 --recipe paper --dry-run",
    first="model dataset root out name recipe probe lr device dry_run",
)
def probe(options: Annotated[Options, OmitArgPrefixes, arg(name="probe")]) -> None:
    """Train probes on a frozen image encoder and append their scores to a results file."""
    options.check()
    if options.dry_run:
        print(cost_text(options))
        return
    assert options.task  # says what is missing
    if options.out is None:
        raise ValueError("a probe needs `out`, the results file (or `dry_run`)")
    check_writable(options.out)
    found = measure(options)
    print(options.out)
    from cliptex.probes.train import wait_for_others

    wait_for_others()
    if found.errors:
        raise ValueError("; ".join(found.errors))


@dataclass(frozen=True, kw_only=True)
class Probed:
    """An encoder, its name in rows, the seeds of its heads; `owner` is the model that it is a
    control of, None for the model itself."""

    encoder: FrozenEncoder
    naming: Naming
    seeds: tuple[int, ...]
    owner: Naming | None = None

    def state(self, options: ProbeOptions) -> Path | None:
        """Its own folder in --state, so that one serves any number of models and data sets."""
        if options.state is None:
            return None
        names = [self.naming.model, options.dataset or "", options.recipe]
        if self.owner is not None:
            names.append("-".join(map(str, self.seeds)))
        return options.state.joinpath(*(file_name(name, safe=" ,:") for name in names))


def probed(options: ProbeOptions, test: Any) -> Iterator[Probed]:
    """The model; with --controls also its architecture with random weights (of its own for each
    seed), and pixels with their places."""
    from cliptex.models.clip import load_clip
    from cliptex.models.device import pick_device
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.baselines import PIXELS, RANDOM, control_encoders
    from cliptex.probes.outcome import Naming

    device = pick_device(options.device)
    clip = load_clip(options.model, options.output_stride).to(device)
    owner = Naming(
        model=options.label,
        checkpoint=checkpoint_of(options.model, clip),
        leak=options.leak or learnt_from(options.model, options.dataset or "", test),
    )
    yield Probed(encoder=FrozenEncoder(clip.image), naming=owner, seeds=options.seeds)
    if not options.controls:
        return
    found = {seed: control_encoders(clip, seed) for seed in options.seeds}
    naming = Naming(model=RANDOM, checkpoint=UNTRAINED)
    for seed, encoders in found.items():
        encoders[RANDOM].encoder.to(device)
        yield Probed(encoder=encoders[RANDOM], naming=naming, seeds=(seed,), owner=owner)
    pixels = found[options.seeds[0]][PIXELS]
    pixels.encoder.to(device)
    yield Probed(encoder=pixels, naming=Naming(model=PIXELS), seeds=options.seeds, owner=owner)


@dataclass(frozen=True)
class Measured:
    """Rows, which are in the file as soon as they are here, and what went wrong with heads."""

    options: ProbeOptions
    out: Path
    rows: list[Result] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, one: Probed, outcome: ProbeOutcome) -> None:
        """Record an outcome of `one`; its error is said now and raised at the end."""
        from cliptex.probes.baselines import control_of

        facts = dict(self.options.split_names())
        if one.owner is not None:
            facts |= control_of(one.owner.model, one.owner.checkpoint)
        self.rows.extend(record(self.out, outcome, facts))
        if outcome.error:
            say(outcome.error)
            self.errors.append(outcome.error)

    def add_mean(self, means: list[Result], columns: list[Result]) -> None:
        """Record the rows of the mean answer, as controls of the model's rows `columns`."""
        from cliptex.probes.baselines import in_place_of

        facts = self.options.split_names()
        rows = [
            row.model_copy(update={"protocol": {**row.protocol, **facts}})
            for row in in_place_of(means, columns)
        ]
        record_rows(self.out, rows)
        self.rows.extend(rows)


def measure(options: ProbeOptions) -> Measured:
    """All heads of the recipe on the model and, with --controls, on what has learnt nothing.

    Under torchrun, this process's share of them.
    """
    from cliptex.probes.method import Share, Storage
    from cliptex.probes.train import run_probe

    assert options.out is not None
    rank, size = process_of()
    if size > 1 and options.recipe == "fast":
        raise ValueError("torchrun: the fast recipe is one process; set `recipe=paper`")
    configs = options.configs()
    train, val, test = options.splits()
    found = Measured(options, options.out)
    for one in probed(options, test):
        before = 0
        for config in configs:
            outcomes = run_probe(
                one.encoder,
                train,
                val,
                test,
                config.model_copy(update={"seeds": one.seeds}),
                naming=one.naming,
                storage=Storage(state=one.state(options), features=options.store()),
                share=Share(rank, size, before),
                truths=options.truths(),
            )
            before += len(config.names) * len(one.seeds)
            for outcome in outcomes:
                found.add(one, outcome)
            if options.pictures and one.owner is None:
                show_pictures(options, one, outcomes, test)
    if options.controls:
        _add_mean_answer(options, found, (train, test), configs[0])
    return found


def _add_mean_answer(
    options: ProbeOptions, found: Measured, sets: tuple[Any, Any], config: object
) -> None:
    """In the columns of the model with the first seed: under torchrun one process has each."""
    from cliptex.probes import baselines

    first = (options.label, options.seeds[0])
    if columns := [row for row in found.rows if (row.model, row.seed) == first]:
        found.add_mean(baselines.mean_rows(*sets, config, options.truths()), columns)


def show_pictures(
    options: ProbeOptions, one: Probed, outcomes: list[ProbeOutcome], test: Any
) -> None:
    """Put drawn pictures of the first seed into the panels beside the results file, where the
    report looks."""
    from cliptex.probes.visualise import add_to_panel, visualise

    assert options.out is not None
    first = [outcome for outcome in outcomes if outcome.key.seed == options.seeds[0]]
    for drawn in visualise(one.encoder, first, test, options.pictures):
        add_to_panel(drawn, options.out.parent / "panels", one.naming.model)


def learnt_from(model: str, layout: str, dataset: Any) -> bool:
    """Whether an expert behind `model` learnt from the images of `dataset`, as far as recorded."""
    from cliptex.datasets.catalogue import benchmark_of
    from cliptex.models.config import read_provenance

    learnt = {benchmark_of(name, name) for name in read_provenance(model).learnt_from}
    return benchmark_of(layout, dataset.name) in learnt
