"""Labelling on many machines with Ray: one task per shard, actors that keep their experts loaded.

An actor reads image shards and writes label stores itself, with `label_shards`; between it and the
run travel the names of shards and counts of images. So every machine must see the images and the
stores under the paths that the run was given. As everywhere, a shard is committed whole: an actor
or a machine that dies costs its shard's work and nothing else.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cliptex.console import say, track
from cliptex.files import TEMPORARY_PATTERN, AnyPath, exists, is_local, remove_abandoned
from cliptex.labelling.engine import LabelRunReport
from cliptex.labelling.options import LabelOptions, RayOptions
from cliptex.labelling.ray_pool import (
    SECONDS_TO_DIE,
    SHARED,
    ActorPool,
    MakeExperts,
    Ready,
    ShardResult,
    Work,
)
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import FILE_NAME
from cliptex.labels.writer import is_committed
from cliptex.machine import need
from cliptex.shards.dataset import ImageTextShards

LOCAL_STORE_BYTES = 256 * 2**20  # of a local Ray instance: it only carries the shards' index
SECONDS_TO_ANSWER = 10.0


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
    options: LabelOptions = LabelOptions(),  # noqa: B008 (frozen)
    ray_options: RayOptions = RayOptions(),  # noqa: B008 (frozen)
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
    start = time.monotonic()
    work = Work(
        shards=shards,
        make_experts=make_experts,
        out=out,
        options=options,
        folder=os.getcwd(),
    )
    with connected(ray_options) as ray:
        per_actor = with_gpus(ray.nodes(), ray_options)
        pool = ActorPool(ray, work, per_actor, per_actor.actors or room_for(ray.nodes(), per_actor))
        stores: tuple[AnyPath, ...] = ()
        try:
            ready = pool.prepare()
            stores = ready.stores
            due = _due(shards, ready)
            results = list(_tracked(pool.label(due), shards, due, ready.experts))
        finally:
            _sweep(stores, SECONDS_TO_DIE if pool.close() else 0.0)
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


def import_ray() -> Any:
    """The module `ray`; MissingPackage where it is not installed."""
    return need("ray", extra="ray", what="labelling on a cluster")


@contextmanager
def connected(options: RayOptions) -> Iterator[Any]:
    """Yields the module `ray`, connected; what was connected or started here is left again.

    A connection that the caller has made already is used and kept. Raises ValueError where no
    cluster answers at an address that was asked for.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    with _sigterm_kept():
        try:
            _connect(ray, options)
            yield ray
        finally:
            ray.shutdown()


def _connect(ray: Any, options: RayOptions) -> None:
    quiet: dict[str, Any] = {"log_to_driver": options.logs, "logging_level": logging.ERROR}
    address = options.address or os.environ.get("RAY_ADDRESS") or "auto"
    if address not in ("auto", "local"):
        _refuse_silent(address)
    try:
        if address != "local":
            ray.init(address=address, **quiet)
            return
    except ConnectionError:
        if address != "auto":
            raise
    say("there is no Ray cluster here: starting Ray on this machine alone")
    ray.init(
        address="local", include_dashboard=False, object_store_memory=LOCAL_STORE_BYTES, **quiet
    )


def _refuse_silent(address: str) -> None:
    """ValueError where nothing listens at HOST:PORT: Ray would try for many minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return  # Ray knows other forms, and says what it does not know
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ValueError(
            f"no Ray cluster answers at {address} ({error}): start one with the command `ray "
            "start` on its head node, or correct `ray.address` or the environment variable "
            "RAY_ADDRESS"
        ) from None


def with_gpus(nodes: Sequence[Mapping[str, Any]], options: RayOptions) -> RayOptions:
    """The options with `gpus` as the cluster's `nodes` (see `room_for`) suggest it."""
    if options.gpus is not None:
        return options
    gpus = any(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in nodes)
    return replace(options, gpus=float(gpus))


def room_for(nodes: Sequence[Mapping[str, Any]], options: RayOptions) -> int:
    """How many actors fit on the living ones of `nodes`, which is what `ray.nodes()` gives.

    Raises ValueError where none fits.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = options.gpus or 0.0
    needs = {"CPU": options.cpus, "GPU": gpus} if gpus else {"CPU": options.cpus}
    fits = [
        min(int(resources.get(name, 0) / amount) for name, amount in needs.items())
        for resources in alive
    ]
    if sum(fits) == 0:
        has = "; ".join(
            f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
            for resources in alive
        )
        raise ValueError(
            f"no node of the cluster has room for an actor of {options.cpus:g} CPUs and "
            f"{gpus:g} GPUs; its nodes have: {has or 'nothing'}. Ask for less, or give "
            "the number of actors where nodes are added on demand"
        )
    return sum(fits)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Undo Ray's replacement of the handler of SIGTERM (which makes it a SystemExit)."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
