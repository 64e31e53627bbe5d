"""Controls for every probe: encoders that have learnt nothing, and rows of the mean answer.

The mean answer never looks at a picture: it scores what position and frequency alone give.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.console import track
from cliptex.datasets.coco import mask_code
from cliptex.datasets.folders import ImageFolder
from cliptex.datasets.protocol import DenseDataset, DetectionDataset, LabelledImages
from cliptex.metrics.scorers import AccuracyScorer
from cliptex.models.encoder import FrozenEncoder, PixelEncoder
from cliptex.probes.ap import PROTOCOL, coco_ap
from cliptex.probes.config import MapConfig
from cliptex.probes.outcome import Naming, Tested, rows_of
from cliptex.probes.task import MapSplit, check_sets
from cliptex.results import CONTROL_OF, CONTROLS, Result

if TYPE_CHECKING:
    from cliptex.models.clip import Clip

RANDOM, PIXELS, MEAN = CONTROLS


def control_encoders(clip: Clip, seed: int = 0) -> dict[str, FrozenEncoder]:
    """Encoders to probe beside that of `clip`, by the names that their rows have.

    `random-init` is the same architecture with weights drawn from `seed`; `pixels` is
    `PixelEncoder` with cells of the same size.
    """
    from cliptex.models.clip import random_clip  # open_clip takes seconds to import

    stride, side = clip.image.stride, clip.image.image_size
    return {
        RANDOM: FrozenEncoder(random_clip(clip.config, seed).image),
        PIXELS: FrozenEncoder(PixelEncoder(stride, side)),
    }


def control_of(model: str, checkpoint: str) -> dict[str, object]:
    """What rows of a control say of the model that it was made for."""
    return {CONTROL_OF: {"model": model, "checkpoint": checkpoint}}


def in_place_of(rows: Sequence[Result], tests: Sequence[Result]) -> list[Result]:
    """`rows` of the mean answer, which no probe gave, as rows of the probes that gave `tests`.

    Each row comes once per probe, recipe and resolution of the tests with its task, data set,
    metric and scoring protocol, so that the report shows it in the columns of all of them; it
    says that it is a control of the test's model.
    """
    found: dict[tuple[object, ...], Result] = {}
    for test in tests:
        for row in rows:
            if _question(row) == _question(test):
                same = {k: test.protocol[k] for k in ("recipe", "resolution") if k in test.protocol}
                protocol = {**row.protocol, **same, **control_of(test.model, test.checkpoint)}
                placed = row.model_copy(update={"probe": test.probe, "protocol": protocol})
                found.setdefault((*_question(placed), placed.probe, placed.variant), placed)
    return list(found.values())


def _question(row: Result) -> tuple[object, ...]:
    return (row.task, row.dataset, row.metric, row.protocol.get("name", ""))


def run_dense_baseline(
    train: DenseDataset,
    test: DenseDataset,
    config: MapConfig,
    truths: Mapping[str, DenseDataset] | None = None,
) -> list[Result]:
    """Score the mean ground truth of `train`, per position, on `test`; rows with probe None.

    The mean is that of one-hot classes, disparities or normals at the probe's resolution. `truths`
    hold, by protocol, sets of the test pictures with other ground truths to score on.
    """
    check_sets(train, test)
    mean = _mean_truth(MapSplit(train, config))
    split = MapSplit(test, config, truths)
    scorers = split.scorers(None, None)
    for i in track(range(len(split)), label=f"{MEAN} on {test.name}, test"):
        answers = split.test(i)[1]
        size = answers[0].shape[:2]
        full = F.interpolate(mean[None], size=size, mode="bilinear", align_corners=False)[0]
        for scorer, target in zip(scorers, answers, strict=True):
            scorer.add(full, target)
    tested = Tested(task=split.task, dataset=test.name, probe=None, n=len(test), seed=0)
    shared = {"resolution": config.resolution, "prediction": "mean per position"}
    return rows_of(scorers, tested, Naming(model=MEAN), shared)[0]


def _mean_truth(train: MapSplit) -> Tensor:
    """(K, side, side) float32; zero where no picture has a valid pixel."""
    side, label = train.side, train.probe.label
    assert label is not None  # of a dense task
    total = torch.zeros(train.probe.outputs, side, side, dtype=torch.float64)
    count = torch.zeros(side, side, dtype=torch.float64)
    for i in track(range(len(train)), label=f"{MEAN} on {train.name}"):
        target = train.plain(i)[1]
        planes = torch.from_numpy(label.to_output(target))
        total[: len(planes)] += planes
        count += torch.from_numpy(label.valid(target))
    return (total / count.clamp(min=1)).float()


def run_majority_baseline(train: LabelledImages, test: LabelledImages) -> list[Result]:
    """Score on `test` always naming the commonest classes of `train`; rows with probe None."""
    check_sets(train, test)
    counts = np.bincount(_labels(train), minlength=len(train.classes))
    order = np.argsort(-counts, kind="stable")
    scores = torch.empty(len(counts))
    scores[order] = -torch.arange(len(counts), dtype=torch.float32)  # one order, without ties
    scorer = AccuracyScorer(len(train.classes))
    for label in _labels(test):
        scorer.add(scores[:, None, None], np.array(label))
    tested = Tested(task="classification", dataset=test.name, probe=None, n=len(test), seed=0)
    shared = {"prediction": f"always {train.classes[order[0]]!r}"}
    return rows_of([scorer], tested, Naming(model=MEAN), shared)[0]


def _labels(dataset: LabelledImages) -> list[int]:
    """Class indices; a set that knows its files' classes need not decode them."""
    if isinstance(dataset, ImageFolder):
        return [label for _, label in dataset.files]
    return [dataset[i][1] for i in range(len(dataset))]


def run_detection_baseline(train: DetectionDataset, test: DetectionDataset) -> list[Result]:
    """Score on `test` one object of each class of `train`, the same in all pictures; probe None.

    It has the mean centre and size of the class's boxes, relative to their pictures', is filled
    as a mask, and is as sure as the class is common (its share of all objects). Masks are scored
    where every object of `test` has one.
    """
    means = _means(train.ground_truth(range(len(train))))
    truth = test.ground_truth(range(len(test)))
    found = [entry for image in truth["images"] for entry in _entries(image, means)]
    masked = all(entry.get("segmentation") for entry in truth["annotations"])
    about = {"task": "detection", "dataset": test.name, "probe": None, "n": len(test), "seed": 0}
    prediction = "the mean box of each class, filled"
    protocol: dict[str, object] = {"ap": PROTOCOL, "prediction": prediction}
    return [
        Result(model=MEAN, metric=name, value=value, better="higher", protocol=protocol, **about)
        for name, value in coco_ap(truth, found, ("bbox", "segm") if masked else ("bbox",)).items()
        if not math.isnan(value)  # no object of that size
    ]


def _means(truth: Mapping[str, list[dict[str, Any]]]) -> dict[int, tuple[np.ndarray, float]]:
    """Category id -> (left, top, width, height) in shares of a picture (4,), share of objects."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    boxes: dict[int, list[np.ndarray]] = defaultdict(list)
    for annotation in truth["annotations"]:
        if not annotation.get("iscrowd", 0):
            size = np.array(sizes[annotation["image_id"]] * 2, np.float64)  # (4,)
            boxes[annotation["category_id"]].append(np.array(annotation["bbox"]) / size)
    total = sum(map(len, boxes.values()))
    # The means of left and width together are those of the centre and the width.
    return {number: (np.mean(one, axis=0), len(one) / total) for number, one in boxes.items()}


def _entries(
    image: Mapping[str, Any], means: Mapping[int, tuple[np.ndarray, float]]
) -> list[dict[str, Any]]:
    """COCO's results for one picture."""
    width, height = image["width"], image["height"]
    entries = []
    for number, (mean, score) in means.items():
        left, top, wide, high = (mean * np.array([width, height] * 2)).tolist()
        right, bottom = left + wide, top + high
        outline = [[left, top, right, top, right, bottom, left, bottom]]
        entries.append(
            {
                "image_id": image["id"],
                "category_id": number,
                "bbox": [left, top, wide, high],
                "score": score,
                "segmentation": mask_code(outline, height, width),
            }
        )
    return entries


def mean_rows(
    train: Any, test: Any, config: object, truths: Mapping[str, DenseDataset] | None = None
) -> list[Result]:
    """The mean answer of whatever task the sets are for; rows with probe None."""
    if hasattr(train, "ground_truth"):
        return run_detection_baseline(train, test)
    if isinstance(config, MapConfig) and getattr(train, "kind", None) is not None:
        return run_dense_baseline(train, test, config, truths)
    return run_majority_baseline(train, test)
