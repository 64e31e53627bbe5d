"""The labelling engine: image-text shards and experts in, a label store of each out.

Shards are labelled one by one and committed whole, so a run may be killed at any moment and
repeated: it labels what has no ledger yet. Which images share a batch depends on the shard alone,
so its bytes depend neither on where a run began nor on the timing of the stages (see `pipeline`).
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import overload

from cliptex.console import say, track
from cliptex.experts.protocol import Expert, ExpertSpec
from cliptex.files import AnyPath, remove_abandoned
from cliptex.labelling.codec_choice import choose_codecs
from cliptex.labelling.growth import open_stores
from cliptex.labelling.jobs import is_due, share_of
from cliptex.labelling.lane import Job
from cliptex.labelling.pipeline import Pipeline
from cliptex.labels.ledger import Status
from cliptex.labels.store import Manifest
from cliptex.shards.dataset import ImageTextShards


@dataclass(frozen=True, kw_only=True)
class LabelRunReport:
    """What `label_shards` did with one expert; `statuses` counts this run's images only."""

    folder: AnyPath
    shards_done: int
    shards_skipped: int
    images: int
    statuses: dict[str, int]
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds > 0 else 0.0

    @classmethod
    def of(
        cls, job: Job, statuses: Counter[Status], done: int, shards: int, seconds: float
    ) -> LabelRunReport:
        """The report of a job that labelled `done` of the `shards` that it had to look at."""
        return cls(
            folder=job.folder,
            shards_done=done,
            shards_skipped=shards - done,
            images=statuses.total(),
            statuses={status.label: count for status, count in sorted(statuses.items())},
            seconds=seconds,
        )


def manifest_of(
    spec: ExpertSpec, shards: ImageTextShards, max_side: int = 512, codec: str | None = None
) -> Manifest:
    """The manifest of an expert's labels of `shards`; `codec` None is the kind's default."""
    return Manifest.of(
        spec.kind,
        expert=spec.name,
        dataset_id=shards.dataset_id,
        source=spec.source,
        revision=spec.revision,
        weights_sha256=spec.weights_sha256,
        licence=spec.licence,
        learnt_from=spec.learnt_from,
        preprocessing=spec.preprocessing,
        thresholds=spec.thresholds,
        max_side=max_side,
        codec=codec,
        confidence=spec.confidence,
    )


@overload
def label_shards(
    shards: ImageTextShards,
    experts: Expert,
    out: AnyPath,
    *,
    batch_size: int = 8,
    max_side: int = 512,
    codecs: Sequence[str] = (),
    retry_failed: bool = False,
    only: Sequence[str] | None = None,
    rank: int = 0,
    world_size: int = 1,
    sweep: bool = True,
) -> LabelRunReport: ...


@overload
def label_shards(
    shards: ImageTextShards,
    experts: Sequence[Expert],
    out: AnyPath,
    *,
    batch_size: int = 8,
    max_side: int = 512,
    codecs: Sequence[str] = (),
    retry_failed: bool = False,
    only: Sequence[str] | None = None,
    rank: int = 0,
    world_size: int = 1,
    sweep: bool = True,
) -> tuple[LabelRunReport, ...]: ...


def label_shards(
    shards: ImageTextShards,
    experts: Expert | Sequence[Expert],
    out: AnyPath,
    *,
    batch_size: int = 8,
    max_side: int = 512,
    codecs: Sequence[str] = (),
    retry_failed: bool = False,
    only: Sequence[str] | None = None,
    rank: int = 0,
    world_size: int = 1,
    sweep: bool = True,
) -> LabelRunReport | tuple[LabelRunReport, ...]:
    """Label every shard that has no ledger yet, into `out/EXPERT`.

    Several experts label in one pass, in which each image is decoded once; shards that some of
    them have labelled already are skipped for these. `only` names the shards to label, by default
    all; of `world_size` jobs, job `rank` takes those of them whose number leaves that remainder.
    `codecs` are instead of the default codecs of the kinds that they store.

    Images that cannot be decoded, or on which the expert fails alone, get a ledger line. Where
    memory does not suffice, batches are halved for the rest of the run. Confidence is stored where
    the expert's spec says what it means. SIGTERM and Ctrl-C leave whole shards only. A shard that
    another run on the same file system is labelling is left to that run, and waited for. What runs
    that died left behind is removed, which lists the whole stores; `sweep=False` leaves that out.

    `retry_failed` labels shards with failures of the expert anew, and nothing else: whole, because
    an image is predicted with its batch, and only so is the result that of an undisturbed run.

    Returns a report, or one for each of a sequence of experts, in its order.
    Raises ValueError where `out/EXPERT` holds labels of another expert, setting or data set, or
    `only` names a shard that the data set does not have, RuntimeError where an expert fails on all
    images of a shard, OSError on a full disk.
    """
    if batch_size < 1 or max_side < 1:
        raise ValueError(f"batch_size and max_side must be positive: {batch_size}, {max_side}")
    every = tuple(experts) if isinstance(experts, Sequence) else (experts,)
    _refuse_bad_choice([expert.spec.name for expert in every])
    chosen = choose_codecs([expert.spec.kind for expert in every], codecs)
    manifests = [
        manifest_of(expert.spec, shards, max_side, codec)
        for expert, codec in zip(every, chosen, strict=True)
    ]
    mine = share_of(_chosen(shards, only), rank, world_size)
    start = time.monotonic()
    with _terminate_as_exception():
        folders = open_stores(out, manifests, shards)
        if sweep:
            _sweep(folders)
        jobs = [
            _job(expert, folder, mine, retry_failed)
            for expert, folder in zip(every, folders, strict=True)
        ]
        with Pipeline(shards, mine, jobs, batch_size=batch_size) as pipeline:
            counts = _tracked(pipeline, shards, mine, jobs)
        if sweep:
            _sweep(folders)  # of runs beside this one that were killed meanwhile
    took = time.monotonic() - start
    reports = tuple(
        LabelRunReport.of(job, count, done, len(mine), took)
        for job, count, done in zip(jobs, counts, pipeline.shards_done, strict=True)
    )
    return reports if isinstance(experts, Sequence) else reports[0]


def _chosen(data: ImageTextShards, only: Sequence[str] | None) -> tuple[str, ...]:
    """The shards that `only` names, in the data set's order; all of them without it."""
    if only is None:
        return data.shards
    unknown = sorted(set(only) - set(data.shards))
    if unknown:
        raise ValueError(
            f"{data.root} has no shard {', '.join(unknown[:5])}: `only` takes paths relative to "
            "it, as `ImageTextShards.shards` lists them"
        )
    wanted = set(only)
    return tuple(shard for shard in data.shards if shard in wanted)


def _refuse_bad_choice(names: list[str]) -> None:
    if not names:
        raise ValueError("there is no expert to label with: give one or more")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"experts of one name would share a folder: {', '.join(twice)}")


def _sweep(folders: Sequence[AnyPath]) -> None:
    for folder in folders:
        remove_abandoned(folder)


def _job(expert: Expert, folder: AnyPath, shards: Sequence[str], redo: bool) -> Job:
    """What an expert has to do in its store."""
    due = frozenset(shard for shard in shards if is_due(folder, shard, redo))
    return Job(expert, folder, due, redo=redo)


def _tracked(
    pipeline: Pipeline, data: ImageTextShards, shards: Sequence[str], jobs: Sequence[Job]
) -> list[Counter[Status]]:
    """Run the pipeline behind a progress bar; how many images of each job have which status."""
    total = len(jobs) * sum(len(data.keys(shard)) for shard in shards)
    due = sum(len(data.keys(shard)) for job in jobs for shard in job.shards)
    title = f"labelling with {', '.join(job.expert.spec.name for job in jobs)}"
    counts: list[Counter[Status]] = [Counter() for _ in jobs]
    for number, status in track(pipeline.results(), label=title, total=total, done=total - due):
        counts[number][status] += 1
    failed = sum(count.total() - count[Status.OK] for count in counts)
    if failed:
        say(f"{failed} images have no label; `cliptex label status` says why")
    return counts


@contextmanager
def _terminate_as_exception() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that files under construction are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
