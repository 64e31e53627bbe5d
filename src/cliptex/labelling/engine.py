"""The labelling engine: image-text shards and experts in, a label store of each expert out.

Shards are labelled one by one and committed whole, so a run may be killed at any moment and
repeated: it labels what has no ledger yet. One thread reads bytes and forms batches, which a pool
decodes; every expert has a worker of its own (`expert_worker`), which predicts, encodes and writes.
Stages are joined by queues, and `InFlight` bounds what is in all of them together. Which images
share a batch depends on the shard alone, so its bytes depend neither on where a run began nor on
the timing of the stages.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType

from cliptex.console import say, track
from cliptex.experts.protocol import Expert, ExpertSpec
from cliptex.files import AnyPath, remove_abandoned
from cliptex.labelling.expert_worker import (
    Batch,
    Decoded,
    Done,
    End,
    ExpertWorker,
    InFlight,
    Job,
    Shared,
    Stopped,
)
from cliptex.labelling.options import LabelOptions
from cliptex.labelling.stats import choose_codecs
from cliptex.labelling.stores import is_due, open_stores
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import Manifest
from cliptex.machine import cores
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image

MAX_POOL = 8  # threads that decode, and as many that encode
LOCK_POLL = 0.2  # seconds between two looks at a shard that another run is labelling
# Batches' worth of consecutive images among which images of one shape are looked for.
WINDOW = 4
MAX_WINDOW_BYTES = 256 * 2**20
DEFAULTS = LabelOptions()


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


def label_shards(
    shards: ImageTextShards,
    experts: Sequence[Expert],
    out: AnyPath,
    options: LabelOptions = DEFAULTS,
    *,
    only: Sequence[str] | None = None,
    retry_failed: bool = False,
    sweep: bool = True,
) -> tuple[LabelRunReport, ...]:
    """Label every shard that has no ledger yet, into `out/EXPERT`; returns a report per expert.

    Several experts label in one pass, in which each image is decoded once; shards that some of
    them have labelled already are skipped for these. `only` names the shards to label, by default
    all: of several jobs on one data set each labels its own (`options.share_of`).

    Images that cannot be decoded, or on which the expert fails alone, get a ledger line. Where
    memory does not suffice, batches are halved for the rest of the run. Confidence is stored where
    the expert's spec says what it means. SIGTERM and Ctrl-C leave whole shards only. A shard that
    another run on the same file system is labelling is left to that run, and waited for. What runs
    that died left behind is removed, which lists the whole stores; `sweep=False` leaves that out.

    `retry_failed` labels shards with failures of the expert anew, and nothing else: whole, because
    an image is predicted with its batch, and only so is the result that of an undisturbed run.

    Raises ValueError where `out/EXPERT` holds labels of another expert, setting or data set, or
    `only` names a shard that the data set does not have, RuntimeError where an expert fails on all
    images of a shard, OSError on a full disk.
    """
    _refuse_bad_choice([expert.spec.name for expert in experts])
    chosen = choose_codecs([expert.spec.kind for expert in experts], options.codec)
    manifests = [
        manifest_of(expert.spec, shards, options.max_side, codec)
        for expert, codec in zip(experts, chosen, strict=True)
    ]
    mine = _chosen(shards, only)
    start = time.monotonic()
    with _terminate_as_exception():
        folders = open_stores(out, manifests, shards)
        if sweep:
            _sweep(folders)
        jobs = [
            _job(expert, folder, mine, retry_failed)
            for expert, folder in zip(experts, folders, strict=True)
        ]
        with Pipeline(shards, mine, jobs, options.batch_size) as pipeline:
            counts = _tracked(pipeline, shards, mine, jobs)
        if sweep:
            _sweep(folders)  # of runs beside this one that were killed meanwhile
    took = time.monotonic() - start
    return tuple(
        LabelRunReport.of(job, count, done, len(mine), took)
        for job, count, done in zip(jobs, counts, pipeline.shards_done, strict=True)
    )


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


class Pipeline:
    """Labels `shards` of `data` by every job in one pass; each image is decoded once.

    A context manager: leaving it stops and joins all threads, and nothing half-made stays.
    Memory: at most `max_images_in_flight(batch_size)` images, with their labels.
    """

    def __init__(
        self,
        data: ImageTextShards,
        shards: Sequence[str],
        jobs: Sequence[Job],
        batch_size: int,
    ) -> None:
        self._data = data
        self._shards = shards
        self._pool_size = min(MAX_POOL, max(2, cores()))
        self._decoders = ThreadPoolExecutor(self._pool_size, "decode")
        self._encoders = ThreadPoolExecutor(self._pool_size, "encode")
        self._shared = Shared(
            batch_size=batch_size,
            flight=_in_flight(batch_size),
            encoders=self._encoders,
            results=SimpleQueue(),
            stop=threading.Event(),
        )
        self._workers = [ExpertWorker(number, job, self._shared) for number, job in enumerate(jobs)]
        stages = [stage for worker in self._workers for stage in (worker.predict, worker.write)]
        self._threads = [
            threading.Thread(target=stage, name=stage.__name__, daemon=True)
            for stage in (self._feed, *stages)
        ]

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shared.stop.set()
        self._shared.flight.stop()
        for pool in (self._decoders, self._encoders):
            pool.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            if thread.ident is not None:  # a signal may come before all are started
                thread.join()
        for worker in self._workers:
            worker.close()
        for pool in (self._decoders, self._encoders):
            pool.shutdown()

    def results(self) -> Iterator[tuple[int, Status]]:
        """Run, once; yields (number of the job, status) as each image's line is written.

        Raises what a stage raised.
        """
        for thread in self._threads:
            thread.start()
        writing = len(self._workers)
        while writing:
            result = self._shared.results.get()
            if not isinstance(result, Done):
                yield result
            elif result.error is not None:
                raise result.error
            else:
                writing -= 1

    @property
    def shards_done(self) -> list[int]:
        """Shards that each job has committed so far."""
        return [worker.shards_done for worker in self._workers]

    def _feed(self) -> None:
        """Hand every shard to the experts that lack it; what others are labelling comes last."""
        try:
            for shard in self._shards:
                self._offer(shard)
            for shard in self._shards:
                while any(worker.wants(shard) for worker in self._workers):
                    if self._shared.stop.wait(LOCK_POLL):
                        raise Stopped
                    self._offer(shard)
            _hand(Done(), self._workers)
        except BaseException as error:  # raised again by the thread that takes the results
            _hand(Done(error), self._workers)

    def _offer(self, shard: str) -> None:
        size = self._data.index(shard).size
        workers = [
            worker for worker in self._workers if worker.wants(shard) and worker.begin(shard, size)
        ]
        if workers:
            self._feed_shard(shard, workers)

    def _feed_shard(self, shard: str, workers: Sequence[ExpertWorker]) -> None:
        images = _decoded_images(
            self._data,
            shard,
            self._decoders,
            self._shared.flight,
            ahead=2 * self._pool_size,
            users=len(workers),
        )
        for batch in _batches(images, self._shared.batch_size):
            if self._shared.stop.is_set():
                raise Stopped
            _hand(batch, workers)
        _hand(End(), workers)


def _hand(message: Batch, workers: Sequence[ExpertWorker]) -> None:
    for worker in workers:
        worker.batches.put(message)


def _decoded_images(
    shards: ImageTextShards,
    shard: str,
    pool: Executor,
    flight: InFlight,
    *,
    ahead: int,
    users: int,
) -> Iterator[Decoded]:
    """Every image of a shard in its order, for so many users; at most `ahead` are being decoded.

    Bytes are read by the calling thread, decoding (which releases the interpreter) by the pool.
    """

    def decode(place: int, key: str, data: bytes) -> Decoded:
        try:
            item = Decoded(place, key, decode_image(data), users)
        except ImageError as error:
            return Decoded(place, key, None, users, str(error))
        flight.weigh(item.size)
        return item

    pending: deque[Future[Decoded]] = deque()
    for place, key in enumerate(shards.keys(shard)):
        # Before waiting for room, what is decoded must go on: it may be what holds the room.
        while pending and (len(pending) >= ahead or not flight.has_room()):
            yield pending.popleft().result()
        flight.enter()
        pending.append(pool.submit(decode, place, key, shards.read_image(shard, key)))
    while pending:
        yield pending.popleft().result()


def _batches(items: Iterable[Decoded], batch_size: int) -> Iterator[list[Decoded]]:
    """Batches of images of one (H, W), each as soon as it is full; undecodable images alone.

    Shapes are gathered within windows of `WINDOW * batch_size` consecutive images or about
    256 MiB, so which images share a batch depends on the images alone.
    """
    by_shape: dict[tuple[int, ...], list[Decoded]] = {}
    count = size = 0
    for item in items:
        count += 1
        size += item.size
        if item.image is None:
            yield [item]
        else:
            group = by_shape.setdefault(item.image.shape, [])
            group.append(item)
            if len(group) == batch_size:
                yield by_shape.pop(item.image.shape)
        if count >= WINDOW * batch_size or size >= MAX_WINDOW_BYTES:
            yield from by_shape.values()
            by_shape, count, size = {}, 0, 0
    yield from by_shape.values()


def _in_flight(batch_size: int) -> InFlight:
    """Room for two windows of images.

    No less would do: the images of a window may wait for its last one, while the window before is
    still being written.
    """
    return InFlight(max_images_in_flight(batch_size), 2 * MAX_WINDOW_BYTES)


def max_images_in_flight(batch_size: int) -> int:
    """The largest number of images that the engine holds at any moment."""
    return 2 * WINDOW * batch_size
