"""What `cliptex probe` measures: a model, with --controls also what has learnt nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliptex.cli.probing import ProbeOptions, example_sets, feature_store, learnt_from
from cliptex.cli.rows import record, record_rows
from cliptex.cli.weights import RANDOM as UNTRAINED
from cliptex.cli.weights import checkpoint_of, process_of
from cliptex.console import say
from cliptex.files import file_name

if TYPE_CHECKING:
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.bank_config import BankConfig
    from cliptex.probes.config import ProbeConfig
    from cliptex.probes.detection.run import DetectionOutcome
    from cliptex.probes.outcome import ProbeOutcome
    from cliptex.probes.pictures import Drawn
    from cliptex.probes.run_bank import HeadOutcome
    from cliptex.probes.scores import Naming
    from cliptex.results import Result

    Baseline = Callable[[Any, Any], list[Result]]  # of the training and the test set


@dataclass(frozen=True, kw_only=True)
class Probed:
    """An encoder, its name in rows, the seeds of its heads; `owner` is the model that it is a
    control of, None for the model itself."""

    encoder: FrozenEncoder
    naming: Naming
    seeds: tuple[int, ...]
    owner: Naming | None = None

    @property
    def control(self) -> bool:
        """Whether this has learnt nothing."""
        return self.owner is not None

    def state(self, options: ProbeOptions) -> Path | None:
        """Its own folder in --state, so that one serves any number of models and data sets."""
        if options.state is None:
            return None
        names = [self.naming.model, options.dataset or "", options.recipe]
        if self.control:
            names.append("-".join(map(str, self.seeds)))
        return options.state.joinpath(*(file_name(name, safe=" ,:") for name in names))


def probed(options: ProbeOptions, test: Any) -> Iterator[Probed]:
    """The model; with --controls also its architecture with random weights (of its own for each
    seed), and pixels with their places."""
    from cliptex.models.clip import load_clip
    from cliptex.models.device import pick_device
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.controls import PIXELS, RANDOM, control_encoders
    from cliptex.probes.scores import Naming

    device = pick_device(options.device)
    clip = load_clip(options.model, options.output_stride).to(device)
    owner = Naming(
        model=options.name or options.model,
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
    rows: list[Result] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(
        self,
        one: Probed,
        outcome: ProbeOutcome | HeadOutcome | DetectionOutcome,
        error: str = "",
    ) -> None:
        """Record an outcome of `one`; an `error` is said now and raised at the end."""
        from cliptex.probes.controls import control_of

        assert self.options.out is not None
        facts = dict(self.options.split_names())
        if one.owner is not None:
            facts |= control_of(one.owner.model, one.owner.checkpoint)
        self.rows.extend(record(self.options.out, outcome, facts))
        if error:
            say(error)
            self.errors.append(error)

    def add_mean(self, baseline: Baseline) -> None:
        """With --controls, the rows of the mean answer, `baseline`, in the columns of the model.

        Of its own with the first seed: under torchrun one process has each of them.
        """
        from cliptex.probes.controls import in_place_of

        options = self.options
        if not options.controls:
            return
        name = options.name or options.model
        columns = [row for row in self.rows if (row.model, row.seed) == (name, options.seeds[0])]
        if columns:
            assert options.out is not None
            train, _, test = options.splits()
            rows = in_place_of(baseline(train, test), columns)
            facts = options.split_names()
            rows = [r.model_copy(update={"protocol": {**r.protocol, **facts}}) for r in rows]
            record_rows(options.out, rows)
            self.rows.extend(rows)


def fast_rows(options: ProbeOptions) -> Measured:
    """Linear heads on cached features, one probe per seed; the pictures are encoded once."""
    from cliptex.probes.classification import run_classification_probe
    from cliptex.probes.config import ProbeConfig
    from cliptex.probes.dense import run_dense_probe
    from cliptex.probes.feature_store import StoredMemory
    from cliptex.probes.features import FeatureMemory
    from cliptex.probes.pictures import draw_linear

    if options.probe not in ((), ("linear",)):
        raise ValueError("--probe: the fast recipe trains linear heads only; add --recipe paper")
    if process_of()[1] > 1:
        raise ValueError("torchrun: the fast recipe is one process; add --recipe paper")
    options.refuse(
        ("state", "warmup_steps", "augmentation"),
        "the fast recipe learns in minutes from features of whole pictures; what it can go on "
        "with after a kill are those of --features",
    )
    train, val, test = options.splits()
    run: Any = run_classification_probe
    if options.task != "classification":
        run = partial(run_dense_probe, truths=options.truths())
    found = Measured(options)
    for one in probed(options, test):
        memory = FeatureMemory(2 << 30) if len(one.seeds) > 1 else None
        store = feature_store(options)
        for seed in one.seeds:
            if store is not None:
                memory = StoredMemory(store)
            config = ProbeConfig(seed=seed, scratch=options.scratch, **options.asked_fast())
            names = {name: getattr(one.naming, name) for name in ("model", "checkpoint", "leak")}
            outcome = run(one.encoder, train, val, test, config, memory=memory, **names)
            found.add(one, outcome)
            if options.pictures and not one.control and seed == options.seeds[0]:
                drawn = draw_linear(one.encoder, outcome, test, options.pictures)
                show_pictures(options, [drawn], one.naming.model)
    found.add_mean(_baseline(options, ProbeConfig(**options.asked_fast())))
    return found


def paper_rows(options: ProbeOptions) -> Measured:
    """All heads of Table 8 on one encoder pass per batch; under torchrun, this process's share."""
    from cliptex.probes.pictures import draw_bank
    from cliptex.probes.run_bank import Share, Storage, run_bank

    train, val, test, config = example_sets(options)
    pictured = options.splits()[2]
    found = Measured(options)
    share = Share(*process_of())
    for one in probed(options, pictured):
        bank = config.model_copy(update={"seeds": one.seeds})
        outcomes = run_bank(
            one.encoder,
            train,
            val,
            test,
            bank,
            naming=one.naming,
            storage=Storage(state=one.state(options), features=feature_store(options)),
            share=share,
        )
        for outcome in outcomes:
            found.add(one, outcome, outcome.error)
        if options.pictures and not one.control:
            first = [o for o in outcomes if o.member.key.seed == options.seeds[0]]
            drawn = draw_bank(one.encoder, first, pictured, bank, options.pictures)
            show_pictures(options, drawn, one.naming.model)
    found.add_mean(_baseline(options, config))
    return found


def _baseline(options: ProbeOptions, config: ProbeConfig | BankConfig) -> Baseline:
    """The mean answer of a dense task, or of classification."""
    from cliptex.probes.baselines import run_dense_baseline, run_majority_baseline

    if options.task == "classification":
        return run_majority_baseline
    return partial(run_dense_baseline, config=config, truths=options.truths())


def show_pictures(options: ProbeOptions, drawn: list[Drawn], model: str) -> None:
    """Put drawn pictures into the panels beside the results file, where the report looks."""
    from cliptex.probes.panels import add_to_panel

    assert options.out is not None
    for one in drawn:
        add_to_panel(one, options.out.parent / "panels", model)
