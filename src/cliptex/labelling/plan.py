"""What labelling a whole data set will cost, from a few of its images labelled for real."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cliptex.experts.protocol import Expert, ExpertSpec, Prediction
from cliptex.labelling.compare import Difference, as_stored, difference
from cliptex.labelling.engine import label_shards
from cliptex.labels.kinds import ClassMap, Kind, ScalarField
from cliptex.labels.reader import LabelReader
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image
from cliptex.shards.write import ShardFile

SHARD = "plan.tar"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Measured on `sampled` images, `labelled` of which got a label; extrapolated to `images`.

    `bytes_per_image` counts the label, its tar headers and its line in the ledger.
    `images_per_second` is the engine's rate, decoding and encoding included;
    `expert_images_per_second` that of the expert alone. `error` is the codec's, decode(encode(x))
    against x: the mean over labels, and the worst pixel of all.
    """

    expert: str
    kind: Kind
    codec: str
    images: int
    sampled: int
    labelled: int
    bytes_per_image: float
    images_per_second: float
    expert_images_per_second: float
    error: Difference

    @property
    def total_bytes(self) -> float:
        return self.bytes_per_image * self.images

    @property
    def hours(self) -> float:
        """Of one process like this one, on the whole data set."""
        return self.images / self.images_per_second / 3600

    def __str__(self) -> str:
        rows = {
            "images": f"{self.images} ({self.labelled} of {self.sampled} drawn got a label)",
            "bytes per image": f"{self.bytes_per_image:.0f}",
            "whole store": _bytes(self.total_bytes),
            "images per second": f"{self.images_per_second:.2f} "
            f"(the expert alone {self.expert_images_per_second:.2f})",
            "hours": f"{self.hours:.2f}",
            "codec": self.codec,
            "codec's error": _error(self.kind, self.error),
        }
        width = max(map(len, rows))
        lines = [f"  {name:<{width}}  {value}" for name, value in rows.items()]
        return "\n".join([f"plan for {self.expert}", *lines])


def plan_labels(
    shards: ImageTextShards,
    expert: Expert,
    *,
    count: int = 16,
    batch_size: int = 8,
    max_side: int = 512,
    seed: int = 0,
) -> Plan:
    """Label `count` images drawn by the seed with the real engine, in a temporary folder.

    The expert sees one image before the clock starts, so that loading is not counted; the run's
    fixed cost is, which makes the hours an upper bound. Raises ValueError where the data set is
    empty or no drawn image got a label.
    """
    if count < 1 or not len(shards):
        raise ValueError(f"a plan needs at least one image: count {count} of {len(shards)}")
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(len(shards), min(count, len(shards)), replace=False))
    with tempfile.TemporaryDirectory(prefix="cliptex-plan-") as name:
        drawn = _copy(shards, numbers, Path(name))
        watched = _Watched(expert)
        watched.warm_up(drawn)
        report = label_shards(
            drawn, watched, Path(name) / "labels", batch_size=batch_size, max_side=max_side
        )
        reader = LabelReader(report.folder)
        ledger = reader.ledger(SHARD)
        assert ledger is not None  # the engine has committed it
        labelled = len(ledger.ok_keys())
        if not labelled:
            raise ValueError(
                f"none of {len(drawn)} images got a label: {report.statuses}; "
                f"{next(reader.failures())[3]}"
            )
        error = _codec_error(drawn, reader, watched)
        size = ledger.tar_size + ledger.path.stat().st_size
        codec = reader.manifest.codec
        reader.close()
    return Plan(
        expert=expert.spec.name,
        kind=expert.spec.kind,
        codec=codec,
        images=len(shards),
        sampled=len(drawn),
        labelled=labelled,
        bytes_per_image=size / len(drawn),
        images_per_second=report.images_per_second,
        expert_images_per_second=watched.images / max(watched.seconds, 1e-9),
        error=error,
    )


@dataclass
class _Watched:
    """An expert whose time is taken and whose labels are kept by their image's bytes."""

    expert: Expert
    seconds: float = 0.0
    images: int = 0
    labels: dict[bytes, np.ndarray] = field(default_factory=dict)

    @property
    def spec(self) -> ExpertSpec:
        return self.expert.spec

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        start = time.perf_counter()
        found = self.expert.predict(images)
        self.seconds += time.perf_counter() - start
        self.images += len(images)
        for image, prediction in zip(images, found, strict=True):
            self.labels[_fingerprint(image)] = prediction.label
        return found

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
            file.add(f"{place:08d}", shards.read(shard, key).image, extension, "")
    return ImageTextShards(folder / "data", cache=folder / "index")


def _codec_error(shards: ImageTextShards, reader: LabelReader, watched: _Watched) -> Difference:
    """Stored labels against what the expert said, at the stored size."""
    kind, side = reader.kind, reader.manifest.max_side
    found: list[Difference] = []
    for sample in shards:
        stored = reader.read(sample.shard, sample.key)
        if stored is not None:
            said = watched.labels[_fingerprint(decode_image(sample.image))]
            found.append(difference(kind, stored.array, as_stored(kind, said, side)))
    return Difference(
        validity=min(f.validity for f in found),
        mean=float(np.mean([f.mean for f in found])),
        worst=max(f.worst for f in found),
    )


def _fingerprint(image: np.ndarray) -> bytes:
    return hashlib.sha1(repr(image.shape).encode() + image.tobytes()).digest()


def _error(kind: Kind, error: Difference) -> str:
    if isinstance(kind, ClassMap):
        return "none" if error.worst == 0 else error.describe(kind)
    if isinstance(kind, ScalarField):
        return f"{100 * error.mean:.4f} % of the range on mean, {100 * error.worst:.4f} % at most"
    return f"{error.mean:.3f} degrees on mean, {error.worst:.3f} at most"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"
