"""The labelling engine: image-text shards and an expert in, a label store out.

Shards are labelled one by one and committed whole, so a run may be killed at any moment and
repeated: it labels what has no ledger yet. Neither batches nor windows cross shards, so a shard's
bytes do not depend on where a run began.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cliptex.console import say, track
from cliptex.experts.protocol import Expert, ExpertSpec, Prediction
from cliptex.labelling.loading import Decoded, decoded_images, windows
from cliptex.labels.commit import remove_abandoned
from cliptex.labels.ledger import Status, ledger_path, read_ledger
from cliptex.labels.store import Manifest, ShardLabelWriter, add_label, claim_store, is_committed
from cliptex.labels.writer import label_tar
from cliptex.shards.dataset import ImageTextShards

# An expert that fails on every one of so many images of a shard is broken as a whole (a lost
# device, a wrong input size): going on would record the whole data set as failed.
HOPELESS_AFTER = 16
# Batches' worth of consecutive images among which images of one size are looked for.
WINDOW = 4


@dataclass(frozen=True, kw_only=True)
class LabelRunReport:
    """What one call of `label_shards` did; `statuses` counts this run's images only."""

    folder: Path
    shards_done: int
    shards_skipped: int
    images: int
    statuses: dict[str, int]
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds > 0 else 0.0


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


def label_shards(
    shards: ImageTextShards,
    expert: Expert,
    out: Path,
    *,
    batch_size: int = 8,
    max_side: int = 512,
    retry_failed: bool = False,
) -> LabelRunReport:
    """Label every shard that has no ledger yet, into `out/EXPERT`.

    Images that cannot be decoded, or on which the expert fails alone, get a ledger line and cost
    nothing else. `retry_failed` labels shards with failures of the expert anew. SIGTERM and
    Ctrl-C leave whole shards only.

    Raises ValueError where `out/EXPERT` holds labels of another expert, setting or data set,
    RuntimeError where the expert fails on all images of a shard, OSError on a full disk.
    """
    if batch_size < 1 or max_side < 1:
        raise ValueError(f"batch_size and max_side must be positive: {batch_size}, {max_side}")
    start = time.monotonic()
    with _terminate_as_exception():
        folder = claim_store(out, manifest_of(expert.spec, shards, max_side))
        remove_abandoned(folder)
        todo = [s for s in shards.shards if _is_due(folder, s, retry_failed)]
        done = len(shards) - sum(len(shards.keys(shard)) for shard in todo)
        run = _Run(shards, expert, folder, batch_size, max_side)
        labelled = (s for shard in todo for s in run.label_shard(shard, redo=retry_failed))
        title = f"labelling with {expert.spec.name}"
        statuses = Counter(track(labelled, label=title, total=len(shards), done=done))
    failed = sum(statuses.values()) - statuses[Status.OK]
    if failed:
        say(f"{failed} images have no label; `cliptex label status` says why")
    return LabelRunReport(
        folder=folder,
        shards_done=len(todo),
        shards_skipped=len(shards.shards) - len(todo),
        images=sum(statuses.values()),
        statuses={status.label: count for status, count in sorted(statuses.items())},
        seconds=time.monotonic() - start,
    )


@dataclass(frozen=True)
class _Run:
    shards: ImageTextShards
    expert: Expert
    folder: Path
    batch_size: int
    max_side: int

    def label_shard(self, shard: str, *, redo: bool) -> Iterator[Status]:
        """Label and commit one shard; yields each image's status as it is known.

        A shard that another run committed meanwhile is left alone, unless `redo`.
        """
        if is_committed(self.folder, shard) and not redo:
            return
        attempts: Counter[Status] = Counter()
        pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="decode")
        try:
            with ShardLabelWriter(self.folder, shard) as writer:
                images = decoded_images(self.shards, shard, pool, ahead=WINDOW * self.batch_size)
                for window in windows(images, WINDOW * self.batch_size):
                    for status in self._label_window(window, writer):
                        attempts[status] += 1
                        yield status
                    self._give_up_if_hopeless(shard, attempts)
                writer.commit(replace=redo)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _label_window(self, window: list[Decoded], writer: ShardLabelWriter) -> Iterator[Status]:
        labels: dict[str, Prediction | Exception] = {}
        for batch in _batches_of_one_size(window, self.batch_size):
            labels.update(self._predict(batch))
        for item in window:
            if item.image is None:
                writer.fail(item.key, Status.DECODE_ERROR, item.error)
                yield Status.DECODE_ERROR
                continue
            label = labels[item.key]
            if isinstance(label, Exception):
                writer.fail(item.key, Status.EXPERT_ERROR, f"{type(label).__name__}: {label}")
                yield Status.EXPERT_ERROR
            else:
                kind = self.expert.spec.kind
                yield add_label(writer, kind, item.key, label.label, self.max_side)

    def _predict(self, batch: list[Decoded]) -> dict[str, Prediction | Exception]:
        """Labels of a batch; where the batch fails, each image alone, with its own error."""
        images = [item.image for item in batch if item.image is not None]
        try:
            labels = self.expert.predict(images)
            if len(labels) != len(images):
                raise ValueError(f"{len(labels)} labels for {len(images)} images")
            return dict(zip((item.key for item in batch), labels, strict=True))
        except Exception as error:  # an expert is foreign code: whatever it raises is its answer
            if len(batch) == 1:
                return {batch[0].key: error}
        results: dict[str, Prediction | Exception] = {}
        for item in batch:
            results.update(self._predict([item]))
        return results

    def _give_up_if_hopeless(self, shard: str, attempts: Counter[Status]) -> None:
        failed = attempts[Status.EXPERT_ERROR]
        tried = attempts.total() - attempts[Status.DECODE_ERROR]
        if failed == tried >= HOPELESS_AFTER:
            raise RuntimeError(
                f"{self.expert.spec.name} failed on each of the first {failed} images of {shard}; "
                "nothing of this shard was kept. Try the expert on one image, then run again"
            )


def _is_due(folder: Path, shard: str, retry_failed: bool) -> bool:
    if not is_committed(folder, shard):
        return True
    if not retry_failed:
        return False
    return read_ledger(ledger_path(label_tar(folder, shard))).counts()[Status.EXPERT_ERROR] > 0


def _batches_of_one_size(window: list[Decoded], batch_size: int) -> Iterator[list[Decoded]]:
    """Batches of images of one (H, W), sizes in the order in which they appear."""
    by_size: dict[tuple[int, ...], list[Decoded]] = {}
    for item in window:
        if item.image is not None:
            by_size.setdefault(item.image.shape, []).append(item)
    for group in by_size.values():
        for first in range(0, len(group), batch_size):
            yield group[first : first + batch_size]


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
