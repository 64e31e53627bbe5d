"""The renderer's truth about the playroom's web images: to score labels, and as perfect labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cliptex.experts.playroom import TASKS
from cliptex.experts.protocol import ExpertSpec
from cliptex.labelling.engine import manifest_of
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import labels_from_arrays
from cliptex.metrics import AngularErrors, ConfusionMatrix, absrel
from cliptex.pipeline.zoo_experts import expert_class_ids
from cliptex.playroom.scene import EXPERT_THINGS
from cliptex.results import Result
from cliptex.shards.dataset import ImageTextShards

WEB = "playroom-web"
KINDS: dict[str, Kind] = {
    "segmentation": ClassMap(classes=("background", *EXPERT_THINGS)),
    "depth": ScalarField(unit="1/m"),
    "normals": UnitVector(),
}

_READ: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "segmentation": ("semantic", lambda ids: expert_class_ids()[ids]),
    "depth": ("depth", lambda depth: 1 / depth.astype(np.float32)),
    "normals": ("normals", lambda normals: _unit(normals.astype(np.float32))),
}


def _unit(normals: np.ndarray) -> np.ndarray:
    """Restore the length that half precision has rounded."""
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def truth_of_shard(truth: Path, shard: str, task: str) -> Iterator[tuple[str, np.ndarray]]:
    """(key, label) of every image of a web shard, in the array form of the task's kind."""
    array, convert = _READ[task]
    with np.load(truth / Path(shard).with_suffix(".npz").name) as arrays:
        values = arrays[array]
        for key, value in zip(arrays["keys"], values, strict=True):
            yield f"{key:09d}", convert(value)


def write_perfect_labels(shards: ImageTextShards, truth: Path, labels: Path) -> None:
    """Label stores `labels`/perfect-TASK made of the renderer's truth."""
    for task in TASKS:
        spec = ExpertSpec(
            name=f"perfect-{task}",
            kind=KINDS[task],
            source="cliptex playroom renderer",
            revision="1",
            weights_sha256="",
            licence="Apache-2.0",
        )

        def arrays(shard: str, task: str = task) -> Iterator[tuple[str, np.ndarray]]:
            return truth_of_shard(truth, shard, task)

        labels_from_arrays(labels, manifest_of(spec, shards), shards, arrays)


def score_labels(shards: ImageTextShards, truth: Path, labels: Path, seed: int) -> list[Result]:
    """How good the experts' stored labels are: mIoU, AbsRel and a<30 against the truth."""

    def row(task: str) -> Result:
        reader = LabelReader(labels / f"playroom-{task}")
        metric, value, n = _SCORES[task](shards, truth, reader)
        return Result(
            model=f"expert-{task}",
            checkpoint=reader.manifest.weights_sha256,
            task=task,
            dataset=WEB,
            metric=metric,
            value=value,
            better="lower" if metric == "absrel" else "higher",
            n=n,
            seed=seed,
            protocol={"truth": "renderer", "labels": "as stored"},
        )

    with ThreadPoolExecutor(len(_SCORES)) as pool:
        return list(pool.map(row, _SCORES))


Score = Callable[[ImageTextShards, Path, LabelReader], tuple[str, float, int]]


def _pairs(
    shards: ImageTextShards, truth: Path, reader: LabelReader, task: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for shard in shards.shards:
        for key, true in truth_of_shard(truth, shard, task):
            stored = reader.read(shard, key)
            if stored is not None:
                yield reader.kind.resize(stored.array, true.shape[:2]), true


def _score_segmentation(
    shards: ImageTextShards, truth: Path, reader: LabelReader
) -> tuple[str, float, int]:
    confusion, count = ConfusionMatrix(1 + len(EXPERT_THINGS)), 0
    for stored, true in _pairs(shards, truth, reader, "segmentation"):
        confusion.update(stored, true)
        count += 1
    return "miou", confusion.miou(), count


def _score_depth(
    shards: ImageTextShards, truth: Path, reader: LabelReader
) -> tuple[str, float, int]:
    scores = [absrel(stored, 1 / true) for stored, true in _pairs(shards, truth, reader, "depth")]
    return "absrel", float(np.nanmean(scores)), len(scores)


def _score_normals(
    shards: ImageTextShards, truth: Path, reader: LabelReader
) -> tuple[str, float, int]:
    errors, count = AngularErrors(), 0
    for stored, true in _pairs(shards, truth, reader, "normals"):
        errors.update(stored, true)
        count += 1
    return "a30", errors.below(30.0), count


_SCORES: dict[str, Score] = {
    "segmentation": _score_segmentation,
    "depth": _score_depth,
    "normals": _score_normals,
}
