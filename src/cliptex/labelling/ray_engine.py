"""Labelling on many machines with Ray: one task per shard, actors that keep their experts loaded.

An actor reads image shards and writes label stores itself, with `label_shards`; between it and the
run travel the names of shards and counts of images. So every machine must see the images and the
stores under the paths that the run was given. As everywhere, a shard is committed whole: an actor
or a machine that dies costs its shard's work and nothing else.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cliptex.console import say, track
from cliptex.files import TEMPORARY_PATTERN, AnyPath, exists, is_local, remove_abandoned
from cliptex.labelling.engine import LabelRunReport, label_shards
from cliptex.labelling.ray_actor import SHARED, MakeExperts, Ready, ShardResult, Work
from cliptex.labelling.ray_cluster import RayOptions, connected, room_for, with_gpus
from cliptex.labelling.ray_crew import SECONDS_TO_DIE, Crew
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import FILE_NAME
from cliptex.labels.store import is_committed
from cliptex.shards.dataset import ImageTextShards


@dataclass(frozen=True, kw_only=True)
class RayRunReport:
    """What a run on a cluster did: a report per expert, and the shards that have no labels.

    `failures` says why, by shard; `seconds` of the reports is the whole run's, loading included.
    """

    reports: tuple[LabelRunReport, ...]
    failures: dict[str, str]


def label_shards_with_ray(
    shards: ImageTextShards,
    make_experts: MakeExperts,
    out: AnyPath,
    *,
    batch_size: int = 8,
    max_side: int = 512,
    codecs: Sequence[str] = (),
    options: RayOptions | None = None,
) -> RayRunReport:
    """Label every shard that has no ledger yet, as `label_shards` does, on a Ray cluster.

    `make_experts` is called once by every actor; it travels there pickled, so let it name the
    experts and load nothing before. Shards that are committed are not handed out. A shard whose
    actor died goes to another; one on which an expert fails wholly, or within which actors die
    again and again, is listed in the report, and the others go on.

    The run may be killed at any moment and repeated; Ctrl-C and SIGTERM end the actors and leave
    whole shards only.

    Raises MissingPackage without Ray, ValueError where no cluster answers or none of its
    machines has room, OSError where a machine does not see the images or the stores or the disk is
    full, RuntimeError where actors do nothing but die, and what `label_shards` and `make_experts`
    raise before the first shard.
    """
    start, options = time.monotonic(), options or RayOptions()
    work = Work(
        shards=shards,
        make_experts=make_experts,
        out=out,
        label=partial(label_shards, batch_size=batch_size, max_side=max_side, codecs=codecs),
        folder=os.getcwd(),
    )
    with connected(options) as ray:
        options = with_gpus(ray.nodes(), options)
        crew = Crew(ray, work, options, options.actors or room_for(ray.nodes(), options))
        stores: tuple[AnyPath, ...] = ()
        try:
            ready = crew.prepare()
            stores = ready.stores
            due = _due(shards, ready)
            results = list(_tracked(crew.label(due), shards, due, ready.experts))
        finally:
            _sweep(stores, SECONDS_TO_DIE if crew.dismiss() else 0.0)
    return _report(results, stores, len(shards.shards) - len(due), time.monotonic() - start)


def _due(shards: ImageTextShards, ready: Ready) -> list[str]:
    """The shards that some expert lacks."""
    for store in ready.stores:
        if not exists(store / FILE_NAME):
            raise FileNotFoundError(
                f"{ready.machine} made {store / FILE_NAME}, and this machine does not see it; "
                f"{SHARED}"
            )
    return [s for s in shards.shards if not all(is_committed(store, s) for store in ready.stores)]


def _tracked(
    results: Iterator[ShardResult],
    shards: ImageTextShards,
    due: Sequence[str],
    experts: Sequence[str],
) -> list[ShardResult]:
    """All results, behind a progress bar that counts the images of shards as they come."""
    found: list[ShardResult] = []

    def images() -> Iterator[None]:
        for result in results:
            found.append(result)
            yield from [None] * len(shards.index(result.shard))

    total, left = len(shards), sum(len(shards.index(shard)) for shard in due)
    title = f"labelling with {', '.join(experts)}"
    for _ in track(images(), label=title, total=total, done=total - left):
        pass
    return found


def _report(
    results: Sequence[ShardResult], stores: Sequence[AnyPath], skipped: int, seconds: float
) -> RayRunReport:
    done = [result.reports for result in results if not result.error]
    reports = tuple(
        _sum([reports[number] for reports in done], store, skipped, seconds)
        for number, store in enumerate(stores)
    )
    failed = sum(report.images - report.statuses.get(Status.OK.label, 0) for report in reports)
    if failed:
        say(f"{failed} images have no label; `cliptex label status` says why")
    failures = {result.shard: result.error for result in results if result.error}
    return RayRunReport(reports=reports, failures=dict(sorted(failures.items())))


def _sum(
    reports: Sequence[LabelRunReport], folder: AnyPath, skipped: int, seconds: float
) -> LabelRunReport:
    statuses: Counter[str] = Counter()
    for report in reports:
        statuses.update(report.statuses)
    return LabelRunReport(
        folder=folder,
        shards_done=sum(report.shards_done for report in reports),
        shards_skipped=skipped + sum(report.shards_skipped for report in reports),
        images=statuses.total(),
        statuses={s.label: statuses[s.label] for s in Status if statuses[s.label]},
        seconds=seconds,
    )


def _sweep(stores: Sequence[AnyPath], patience: float) -> None:
    """Remove what dead actors had begun.

    A process that was killed keeps its locks until it is gone: for up to `patience` seconds, what
    is still locked is tried again.
    """
    deadline = time.monotonic() + patience
    for store in filter(is_local, stores):
        while remove_abandoned(store) or any(store.rglob(TEMPORARY_PATTERN)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
