"""One expert's stages of the pipeline: predict in threads, encode in a pool, write in another.

As many threads predict as the expert says are worth while (`protocol.Concurrent`), each a batch of
its own; the batches' answers are taken in the batches' order, so timing changes nothing. Whatever
goes wrong before a lane, or in its predicting, travels through its queues like the images do, so
that shards which were whole before are committed; an error of writing ends the run at once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import cast

from cliptex.experts.protocol import Expert, Prediction, concurrency_of
from cliptex.files import AnyPath
from cliptex.labelling.jobs import is_due
from cliptex.labelling.loading import Decoded, InFlight, Stopped
from cliptex.labelling.locks import ShardLock
from cliptex.labelling.predicting import Predictor
from cliptex.labels.codecs import Encoded
from cliptex.labels.ledger import Status
from cliptex.labels.store import ShardLabelWriter, add_label, read_manifest

# An expert that fails on every one of so many images of a shard is broken as a whole (a lost
# device, a wrong input size): going on would record the whole data set as failed.
HOPELESS_AFTER = 16


@dataclass(frozen=True)
class Job:
    """One expert's part of a run: its store's folder, and the shards that it has to label.

    `redo` labels committed shards again in which the expert failed on some image.
    """

    expert: Expert
    folder: AnyPath
    shards: frozenset[str]
    redo: bool


@dataclass(frozen=True)
class Begin:
    """Of a shard, whose lock is the receiver's."""

    shard: str
    image_size: int
    lock: ShardLock


@dataclass(frozen=True)
class End:
    """The shard that was begun is complete."""


@dataclass(frozen=True)
class Done:
    """A stage gives nothing more; `error` is why it ended early."""

    error: BaseException | None = None


@dataclass(frozen=True)
class Shared:
    """What all stages of a run have in common; `results` are (number of the lane, status)."""

    batch_size: int
    flight: InFlight
    encoders: Executor
    results: SimpleQueue[tuple[int, Status] | Done]
    stop: threading.Event


class Record:
    """Stands in for a shard's writer while a label is encoded, and repeats the call to it."""

    def __init__(self) -> None:
        self._repeat: Callable[[ShardLabelWriter], None] | None = None

    def add(self, key: str, label: Encoded) -> None:
        """As `ShardLabelWriter.add`."""
        self._repeat = lambda writer: writer.add(key, label)

    def fail(self, key: str, status: Status, message: str = "") -> None:
        """As `ShardLabelWriter.fail`."""
        self._repeat = lambda writer: writer.fail(key, status, message)

    def write(self, writer: ShardLabelWriter) -> None:
        """Do to the writer what was done to this record."""
        assert self._repeat is not None
        self._repeat(writer)


Outcome = tuple[Record, Status]
Batch = Begin | End | Done | list[Decoded]
Answered = list[tuple[Decoded, Future[Outcome]]]
Answers = Begin | End | Done | Future[Answered]


class Lane:
    """One expert's threads between `batches` and `shared.results`.

    `shards_done` counts the shards that this lane has committed.
    """

    def __init__(self, number: int, job: Job, shared: Shared) -> None:
        self.batches: SimpleQueue[Batch] = SimpleQueue()
        self.shards_done = 0
        self._answers: SimpleQueue[Answers] = SimpleQueue()
        self._number = number
        self._job = job
        self._manifest = read_manifest(job.folder)
        self._shared = shared
        self._predictor = Predictor(job.expert, shared.batch_size)
        self._left = set(job.shards)
        self._locks: list[ShardLock] = []
        self._callers = ThreadPoolExecutor(concurrency_of(job.expert), "predict")

    def wants(self, shard: str) -> bool:
        """Whether the shard is among this run's and neither begun nor found labelled yet."""
        return shard in self._left

    def begin(self, shard: str, image_size: int) -> bool:
        """Begin a shard that the lane wants; False where another run is at it or has done it."""
        lock = ShardLock.take(self._job.folder, shard)
        if lock is None:
            return False
        self._left.discard(shard)
        if not is_due(self._job.folder, shard, self._job.redo):
            lock.release()
            return False
        self._locks.append(lock)
        self.batches.put(Begin(shard, image_size, lock))
        return True

    def stop(self) -> None:
        """Let threads that wait for work see that the run stops."""
        self.batches.put(Done())
        self._answers.put(Done())
        self._callers.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """After the lane's own threads have ended: wait for callers, let go of all shards."""
        self._callers.shutdown()
        for lock in self._locks:
            lock.release()

    def predict(self) -> None:
        """The predicting thread's work: batches in, futures of their answers out."""
        try:
            while not isinstance(message := self.batches.get(), Done):
                if self._shared.stop.is_set():
                    raise Stopped
                if isinstance(message, list):
                    self._answers.put(self._callers.submit(self._label, message))
                else:
                    self._answers.put(message)
            self._answers.put(message)
        except BaseException as error:  # raised again by the thread that takes the results
            self._answers.put(Done(error))

    def write(self) -> None:
        """The writing thread's work: shard after shard, each in order and committed whole."""
        try:
            while isinstance(message := self._next(), Begin):
                size, folder = message.image_size, self._job.folder
                with (
                    message.lock,
                    ShardLabelWriter(folder, message.shard, image_size=size) as writer,
                ):
                    self._fill(writer, message.shard)
                    writer.commit(replace=self._job.redo)
                self.shards_done += 1
            self._shared.results.put(Done())
        except BaseException as error:  # as above
            self._shared.results.put(Done(error))

    def _label(self, batch: list[Decoded]) -> Answered:
        if self._shared.stop.is_set():
            raise Stopped
        images = [item.image for item in batch if item.image is not None]
        answers = iter(self._predictor.predict(images))
        submit = self._shared.encoders.submit
        return [
            (item, submit(self._encode, item, None if item.image is None else next(answers)))
            for item in batch
        ]

    def _encode(self, item: Decoded, answer: Prediction | str | None) -> Outcome:
        record = Record()
        if answer is None:
            status = Status.DECODE_ERROR
            record.fail(item.key, status, item.error)
        elif isinstance(answer, str):
            status = Status.EXPERT_ERROR
            record.fail(item.key, status, answer)
        else:
            writer = cast(ShardLabelWriter, record)  # add_label calls add or fail, nothing else
            status = add_label(
                writer,
                self._manifest,
                item.key,
                answer.label,
                confidence=answer.confidence if self._manifest.confidence else None,
                instances=answer.instances,
            )
        return record, status

    def _next(self) -> Answers:
        message = self._answers.get()
        if self._shared.stop.is_set():
            raise Stopped
        if isinstance(message, Done) and message.error is not None:
            raise message.error
        return message

    def _fill(self, writer: ShardLabelWriter, shard: str) -> None:
        """Write a shard's answers in the order of its images; they come in that of batches."""
        waiting: dict[int, tuple[Decoded, Future[Outcome]]] = {}
        attempts: Counter[Status] = Counter()
        place = 0
        while isinstance(message := self._next(), Future):
            waiting.update((item.place, (item, future)) for item, future in message.result())
            while place in waiting:
                item, future = waiting.pop(place)
                record, status = future.result()
                record.write(writer)
                self._shared.flight.leave(item)
                self._shared.results.put((self._number, status))
                attempts[status] += 1
                place += 1
                self._give_up_if_hopeless(shard, attempts)
        assert not waiting, f"an image of {shard} is missing"

    def _give_up_if_hopeless(self, shard: str, attempts: Counter[Status]) -> None:
        failed = attempts[Status.EXPERT_ERROR]
        tried = attempts.total() - attempts[Status.DECODE_ERROR]
        if failed == tried >= HOPELESS_AFTER:
            raise RuntimeError(
                f"{self._job.expert.spec.name} failed on each of the first {failed} images of "
                f"{shard}; nothing of this shard was kept. Try the expert on one image, then run "
                "again"
            )
