"""One expert's part of the pipeline: predict in threads, encode in a pool, write in another.

As many threads predict as the expert says are worth while (`protocol.Concurrent`), each a batch of
its own; the batches' answers are taken in the batches' order, so timing changes nothing. Whatever
goes wrong before a worker, or in its predicting, travels through its queues like the images do, so
that shards which were whole before are committed; an error of writing ends the run at once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from cliptex.console import say
from cliptex.experts.protocol import Expert, Prediction, concurrency_of
from cliptex.files import AnyPath, Claim
from cliptex.labelling.stores import claim_shard, is_due
from cliptex.labels.codecs import Encoded
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import read_manifest
from cliptex.labels.writer import Failure, ShardLabelWriter, encode_label

# An expert that fails on every one of so many images of a shard is broken as a whole (a lost
# device, a wrong input size): going on would record the whole data set as failed.
HOPELESS_AFTER = 16

# What libraries say in exceptions of no class of their own, in lower case: onnxruntime, C++,
# torch's CPU allocator, CUDA and its libraries.
_OUT_OF_MEMORY = (
    "failed to allocate memory",
    "is smaller than requested bytes",
    "bad_alloc",
    "can't allocate memory",
    "out of memory",
    "alloc_failed",
)


class Stopped(Exception):
    """The run is being stopped: whoever waited gives up."""


@dataclass(eq=False)
class Decoded:
    """Image number `place` of a shard, (H, W, 3) uint8, or None and the error.

    `users` counts the experts whose label of it is not yet written.
    """

    place: int
    key: str
    image: np.ndarray | None
    users: int
    error: str = ""

    @property
    def size(self) -> int:
        """Bytes of pixels."""
        return 0 if self.image is None else self.image.nbytes


class InFlight:
    """Bounds what is between decoding and writing: a number of images, and bytes of pixels.

    The bytes of an image are known when it is decoded, so the bound on bytes is exceeded by as
    many images as are decoded at once; the bound on images is exact.
    """

    def __init__(self, images: int, size: int) -> None:
        self._limits = (images, size)
        self._images = self._size = 0
        self._stopped = False
        self._changed = threading.Condition()

    def has_room(self) -> bool:
        """Whether one more image may enter now."""
        return self._images < self._limits[0] and self._size < self._limits[1]

    def enter(self) -> None:
        """Count one more image, when there is room for it; raises Stopped after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self.has_room())
            if self._stopped:
                raise Stopped
            self._images += 1

    def weigh(self, size: int) -> None:
        """Count the bytes of an image that entered."""
        with self._changed:
            self._size += size

    def leave(self, item: Decoded) -> None:
        """One of the image's users is done; the last one makes room."""
        with self._changed:
            item.users -= 1
            if item.users == 0:
                self._images -= 1
                self._size -= item.size
                self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


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
    """Of a shard, whose claim is the receiver's."""

    shard: str
    image_size: int
    claim: Claim


@dataclass(frozen=True)
class End:
    """The shard that was begun is complete."""


@dataclass(frozen=True)
class Done:
    """A stage gives nothing more; `error` is why it ended early."""

    error: BaseException | None = None


@dataclass(frozen=True)
class Shared:
    """What all stages of a run have in common; `results` are (number of the worker, status)."""

    batch_size: int
    flight: InFlight
    encoders: Executor
    results: SimpleQueue[tuple[int, Status] | Done]
    stop: threading.Event


Outcome = Encoded | Failure
Batch = Begin | End | Done | list[Decoded]
Answered = list[tuple[Decoded, Future[Outcome]]]
Answers = Begin | End | Done | Future[Answered]


class ExpertWorker:
    """One expert's threads between `batches` and `shared.results`.

    `shards_done` counts the shards that this worker has committed.
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
        self._claims: list[Claim] = []
        self._callers = ThreadPoolExecutor(concurrency_of(job.expert), "predict")

    def wants(self, shard: str) -> bool:
        """Whether the shard is among this run's and neither begun nor found labelled yet."""
        return shard in self._left

    def begin(self, shard: str, image_size: int) -> bool:
        """Begin a shard that the worker wants; False where another run is at it or has done it."""
        claim = claim_shard(self._job.folder, shard)
        if claim is None:
            return False
        self._left.discard(shard)
        if not is_due(self._job.folder, shard, self._job.redo):
            claim.release()
            return False
        self._claims.append(claim)
        self.batches.put(Begin(shard, image_size, claim))
        return True

    def stop(self) -> None:
        """Let threads that wait for work see that the run stops."""
        self.batches.put(Done())
        self._answers.put(Done())
        self._callers.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """After the worker's own threads have ended: wait for callers, let go of all shards."""
        self._callers.shutdown()
        for claim in self._claims:
            claim.release()

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
                    message.claim,
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
        if answer is None:
            return Failure(Status.DECODE_ERROR, item.error)
        if isinstance(answer, str):
            return Failure(Status.EXPERT_ERROR, answer)
        return encode_label(
            self._manifest,
            answer.label,
            confidence=answer.confidence if self._manifest.confidence else None,
            instances=answer.instances,
        )

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
                status = writer.write(item.key, future.result())
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


class Predictor:
    """Asks an expert in batches of at most `limit` images, which running out of memory halves.

    `limit` never grows again: memory that was short once will be short again. Several threads may
    ask at once.
    """

    def __init__(self, expert: Expert, batch_size: int) -> None:
        self.expert = expert
        self.limit = batch_size
        self._said = False

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction | str]:
        """A prediction, or the error as text, for each image (H, W, 3) uint8.

        Where a batch fails for want of memory, it is tried in halves; where it fails otherwise,
        each image alone.
        """
        answers: list[Prediction | str] = []
        while len(answers) < len(images):
            batch = images[len(answers) : len(answers) + self.limit]
            answer, short_of_memory = self._attempt(batch)
            if not isinstance(answer, str):
                answers += answer
            elif len(batch) == 1:
                answers.append(answer)
            elif short_of_memory:
                self._halve(len(batch))
            else:
                answers += [self._alone(image) for image in batch]
        return answers

    def _alone(self, image: np.ndarray) -> Prediction | str:
        answer, _ = self._attempt([image])
        return answer if isinstance(answer, str) else answer[0]

    def _attempt(self, batch: Sequence[np.ndarray]) -> tuple[list[Prediction] | str, bool]:
        """Predictions of a batch, or the error as text and whether memory was short.

        The exception itself is let go: its frames would hold the memory that was short.
        """
        try:
            answer = self.expert.predict(batch)
            if len(answer) != len(batch):
                raise ValueError(f"{len(answer)} labels for {len(batch)} images")
        except Exception as error:  # an expert is foreign code: whatever it raises is its answer
            return f"{type(error).__name__}: {error}", is_out_of_memory(error)
        return answer, False

    def _halve(self, tried: int) -> None:
        self.limit = min(self.limit, tried // 2)
        if not self._said:
            self._said = True
            say(
                f"{self.expert.spec.name}: no memory for {tried} images at once; from here on "
                f"{self.limit} at most, and fewer if need be"
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an expert's exception means that a smaller batch might do."""
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError by name: labelling with ONNX must not import torch
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY)
