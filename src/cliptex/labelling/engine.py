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
from pathlib import Path
from typing import overload

from cliptex.console import say, track
from cliptex.experts.protocol import Expert, ExpertSpec
from cliptex.labelling.jobs import share_of
from cliptex.labelling.lane import Job
from cliptex.labelling.pipeline import Pipeline
from cliptex.labels.commit import remove_abandoned
from cliptex.labels.ledger import Status, ledger_path, read_ledger
from cliptex.labels.store import Manifest, claim_store, is_committed
from cliptex.labels.writer import label_tar
from cliptex.shards.dataset import ImageTextShards


@dataclass(frozen=True, kw_only=True)
class LabelRunReport:
    """What `label_shards` did with one expert; `statuses` counts this run's images only."""

    folder: Path
    shards_done: int
    shards_skipped: int
    images: int
    statuses: dict[str, int]
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds > 0 else 0.0

    @classmethod
    def of(cls, job: Job, statuses: Counter[Status], shards: int, seconds: float) -> LabelRunReport:
        """The report of a job that had `shards` shards to look at."""
        return cls(
            folder=job.folder,
            shards_done=len(job.shards),
            shards_skipped=shards - len(job.shards),
            images=statuses.total(),
            statuses={status.label: count for status, count in sorted(statuses.items())},
            seconds=seconds,
        )


def manifest_of(spec: ExpertSpec, shards: ImageTextShards, max_side: int = 512) -> Manifest:
    """The manifest of an expert's labels of `shards`."""
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
    )


@overload
def label_shards(
    shards: ImageTextShards,
    experts: Expert,
    out: Path,
    *,
    batch_size: int = 8,
    max_side: int = 512,
    retry_failed: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> LabelRunReport: ...


@overload
def label_shards(
    shards: ImageTextShards,
    experts: Sequence[Expert],
    out: Path,
    *,
    batch_size: int = 8,
    max_side: int = 512,
    retry_failed: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[LabelRunReport, ...]: ...


def label_shards(
    shards: ImageTextShards,
    experts: Expert | Sequence[Expert],
    out: Path,
    *,
    batch_size: int = 8,
    max_side: int = 512,
    retry_failed: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> LabelRunReport | tuple[LabelRunReport, ...]:
    """Label every shard that has no ledger yet, into `out/EXPERT`.

    Several experts label in one pass, in which each image is decoded once; shards that some of
    them have labelled already are skipped for these. Of `world_size` jobs, job `rank` takes the
    shards whose number leaves that remainder.

    Images that cannot be decoded, or on which the expert fails alone, get a ledger line. Where
    memory does not suffice, batches are halved for the rest of the run. `retry_failed` labels
    shards with failures of the expert anew. SIGTERM and Ctrl-C leave whole shards only.

    Returns a report, or one for each of a sequence of experts, in its order.
    Raises ValueError where `out/EXPERT` holds labels of another expert, setting or data set,
    RuntimeError where an expert fails on all images of a shard, OSError on a full disk.
    """
    if batch_size < 1 or max_side < 1:
        raise ValueError(f"batch_size and max_side must be positive: {batch_size}, {max_side}")
    every = tuple(experts) if isinstance(experts, Sequence) else (experts,)
    _refuse_bad_choice([expert.spec.name for expert in every])
    mine = share_of(shards.shards, rank, world_size)
    start = time.monotonic()
    with _terminate_as_exception():
        jobs = _jobs(shards, mine, every, out, max_side, retry_failed)
        with Pipeline(shards, mine, jobs, batch_size=batch_size, max_side=max_side) as pipeline:
            counts = _tracked(pipeline, shards, mine, jobs)
    took = time.monotonic() - start
    pairs = zip(jobs, counts, strict=True)
    reports = tuple(LabelRunReport.of(job, count, len(mine), took) for job, count in pairs)
    return reports if isinstance(experts, Sequence) else reports[0]


def _refuse_bad_choice(names: list[str]) -> None:
    if not names:
        raise ValueError("there is no expert to label with: give one or more")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"experts of one name would share a folder: {', '.join(twice)}")


def _jobs(
    data: ImageTextShards,
    shards: Sequence[str],
    experts: Sequence[Expert],
    out: Path,
    max_side: int,
    retry_failed: bool,
) -> list[Job]:
    """Claim every expert's store before anything is labelled, and see what each has to do."""
    folders = [claim_store(out, manifest_of(expert.spec, data, max_side)) for expert in experts]
    jobs = []
    for expert, folder in zip(experts, folders, strict=True):
        remove_abandoned(folder)
        due = frozenset(shard for shard in shards if _is_due(folder, shard, retry_failed))
        jobs.append(Job(expert, folder, due, redo=retry_failed))
    return jobs


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


def _is_due(folder: Path, shard: str, retry_failed: bool) -> bool:
    if not is_committed(folder, shard):
        return True
    if not retry_failed:
        return False
    return read_ledger(ledger_path(label_tar(folder, shard))).counts()[Status.EXPERT_ERROR] > 0


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
