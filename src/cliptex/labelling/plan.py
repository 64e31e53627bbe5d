"""What labelling a whole data set will cost, from a few of its images labelled for real."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliptex.experts.protocol import Expert, Prediction, Wrapper
from cliptex.labelling.engine import DEFAULTS, LabelRunReport, label_shards
from cliptex.labelling.options import LabelOptions
from cliptex.labelling.stats import CodecCost, measure_codecs
from cliptex.labels.kinds import Kind
from cliptex.labels.reader import LabelReader
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image
from cliptex.shards.write import ShardFile

SHARD = "plan.tar"


@dataclass(frozen=True, kw_only=True)
class ExpertPlan:
    """Of one expert, which labelled `labelled` of the drawn images.

    `bytes_per_image` counts the label, its tar headers and its line in the ledger, with `codec`.
    `images_per_second` is the rate of the expert alone, with as many calls at once as it takes.
    `codecs` are all that store its kind, the default first.
    """

    expert: str
    kind: Kind
    codec: str
    labelled: int
    bytes_per_image: float
    images_per_second: float
    codecs: tuple[CodecCost, ...]

    def __str__(self) -> str:
        rows = [("codec", "bytes/image", "error on mean", "at most", "encode ms", "decode ms")]
        for cost in self.codecs:
            mean, worst = self.kind.error_text(cost.error)
            size, name = f"{cost.bytes_per_label:.0f}", cost.codec
            name += " (used)" if name == self.codec else ""
            rows.append((name, size, mean, worst, f"{cost.encode_ms:.2f}", f"{cost.decode_ms:.2f}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(map(str.rjust, row, widths)) for row in rows]
        head = (
            f"{self.expert}: {self.labelled} labels, {self.bytes_per_image:.0f} bytes per image, "
            f"{self.images_per_second:.2f} images per second alone"
        )
        return "\n".join([head, *(f"  {line}" for line in table)])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Measured on `sampled` images, extrapolated to `images`.

    `images_per_second` is the engine's rate in one pass with all experts, decoding and encoding
    included.
    """

    images: int
    sampled: int
    images_per_second: float
    experts: tuple[ExpertPlan, ...]

    @property
    def total_bytes(self) -> float:
        """Of all experts' stores."""
        return self.images * sum(expert.bytes_per_image for expert in self.experts)

    @property
    def hours(self) -> float:
        """Of one process like this one, on the whole data set."""
        return self.images / self.images_per_second / 3600

    def __str__(self) -> str:
        return "\n".join(
            [
                *map(str, self.experts),
                f"all {self.images} images, from {self.sampled} drawn: "
                f"{_bytes(self.total_bytes)}, {self.hours:.2f} hours "
                f"at {self.images_per_second:.2f} images per second",
            ]
        )


def plan_labels(
    shards: ImageTextShards,
    experts: Sequence[Expert],
    options: LabelOptions = DEFAULTS,
    *,
    count: int = 16,
    seed: int = 0,
) -> Plan:
    """Label `count` images drawn by the seed with the real engine, in a temporary folder.

    The experts see one image before the clock starts, so that loading is not counted; the run's
    fixed cost is, which makes the hours an upper bound. Raises ValueError where the data set is
    empty or an expert labelled none of the drawn images, and what `label_shards` raises.
    """
    if count < 1 or not len(shards):
        raise ValueError(f"a plan needs at least one image: count {count} of {len(shards)}")
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(len(shards), min(count, len(shards)), replace=False))
    with tempfile.TemporaryDirectory(prefix="cliptex-plan-") as name:
        drawn = _copy(shards, numbers, Path(name))
        watched = [_Watched(expert) for expert in experts]
        for expert in watched:
            expert.warm_up(drawn)
        reports = label_shards(drawn, watched, Path(name) / "labels", options)
        plans = [_of_expert(drawn, *pair) for pair in zip(watched, reports, strict=True)]
    return Plan(
        images=len(shards),
        sampled=len(drawn),
        images_per_second=reports[0].images_per_second,
        experts=tuple(plans),
    )


class _Watched(Wrapper):
    """An expert whose time is taken and whose labels are kept by their image's bytes.

    `seconds` is the time in which at least one call was under way.
    """

    def __init__(self, expert: Expert) -> None:
        super().__init__(expert)
        self.seconds, self.images = 0.0, 0
        self.labels: dict[bytes, np.ndarray] = {}
        self._lock = threading.Lock()
        self._calls, self._since = 0, 0.0

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        self._count(1)
        try:
            found = self.expert.predict(images)
        finally:
            self._count(-1)
        kept = {_fingerprint(x): p.label for x, p in zip(images, found, strict=True)}
        with self._lock:
            self.images += len(images)
            self.labels.update(kept)
        return found

    def _count(self, change: int) -> None:
        """A call begins (1) or ends (-1)."""
        with self._lock:
            now = time.perf_counter()
            if self._calls:
                self.seconds += now - self._since
            self._since = now
            self._calls += change

    def warm_up(self, shards: ImageTextShards) -> None:
        """One call with the first image that decodes; errors come again, where they count."""
        for sample in shards:
            try:
                self.expert.predict([decode_image(sample.image)])
            except ImageError:
                continue
            except Exception:  # foreign code; the engine records what it raises
                return
            return


def _copy(shards: ImageTextShards, numbers: np.ndarray, folder: Path) -> ImageTextShards:
    """The drawn samples as image-text shards of their own, files as they are."""
    with ShardFile(folder / "data" / SHARD) as file:
        for place, number in enumerate(numbers.tolist()):
            shard, key = shards.locate(number)
            index = shards.index(shard)
            extension = index.extensions[index.row(key)]
            file.add(f"{place:08d}", shards.read_image(shard, key), extension, "")
    return ImageTextShards(folder / "data", cache=folder / "index")


def _of_expert(shards: ImageTextShards, watched: _Watched, report: LabelRunReport) -> ExpertPlan:
    """What came of one expert; ValueError with a reason where it labelled nothing."""
    reader = LabelReader(report.folder)
    ledger = reader.ledger(SHARD)
    assert ledger is not None  # the engine has committed it
    labelled = set(ledger.ok_keys().tolist())
    if not labelled:
        raise ValueError(
            f"{watched.spec.name} labelled none of {len(shards)} images: {report.statuses}; "
            f"{next(reader.failures())[3]}"
        )
    kind, manifest = reader.kind, reader.manifest
    said = [
        watched.labels[_fingerprint(decode_image(sample.image))]
        for sample in shards
        if sample.key.encode() in labelled
    ]
    stored = [kind.fit(kind.check(label), manifest.max_side) for label in said]
    reader.close()
    return ExpertPlan(
        expert=watched.spec.name,
        kind=kind,
        codec=manifest.codec,
        labelled=len(labelled),
        bytes_per_image=(ledger.tar_size + ledger.path.stat().st_size) / len(shards),
        images_per_second=watched.images / max(watched.seconds, 1e-9),
        codecs=measure_codecs(kind, stored),
    )


def _fingerprint(image: np.ndarray) -> bytes:
    return hashlib.sha1(repr(image.shape).encode() + image.tobytes()).digest()


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"
