"""Scorers of dense predictions against ground truth of a benchmark, one per kind of label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.metrics import DEPTH_RANGE, AngularErrors, ConfusionMatrix, absrel, depth_mask

METRIC_DISPARITY = "1/m"
BACKGROUND = "background"
# COCO's and ADE20K's names of VOC's classes, after `_plain`.
SYNONYMS = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "tv": "tvmonitor",
    "television": "tvmonitor",
    "televisionreceiver": "tvmonitor",
    "bike": "bicycle",
}

Better = Literal["higher", "lower"]


class Tally(Protocol):
    """Adds up one kind's predictions over images."""

    task: str

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """One image; both (H, W, ...) at the ground truth's size, in their kinds' forms."""
        ...

    def metrics(self) -> dict[str, tuple[float, Better]]: ...

    def protocol(self) -> dict[str, object]: ...


def tally_for(prediction: Kind, truth: Kind) -> Tally:
    """What scores `prediction` against `truth`; ValueError where they have nothing in common."""
    if isinstance(prediction, ClassMap) and isinstance(truth, ClassMap):
        return ClassTally(prediction, truth)
    if isinstance(prediction, ScalarField) and truth == ScalarField("m"):
        return DepthTally(metric=prediction.unit == METRIC_DISPARITY)
    if isinstance(prediction, UnitVector) and isinstance(truth, UnitVector):
        return NormalsTally()
    raise ValueError(f"labels {prediction.to_json()} cannot be scored against {truth.to_json()}")


class ClassTally:
    """mIoU over all of the benchmark's classes, on one confusion matrix of all pixels.

    Classes are matched by name. An expert's class that the benchmark does not know is background
    there, or no class at all where the benchmark has no background (then always wrong, as is an
    ignored prediction). `miou_matched` is the mean over the classes that the expert knows.
    """

    task = "segmentation"

    def __init__(self, prediction: ClassMap, truth: ClassMap) -> None:
        self._kind, self._truth = prediction, truth
        self._ids = match_classes(prediction.classes, truth.classes)
        if not set(self._ids) - {None, _background(truth.classes)}:
            raise ValueError(
                f"the expert's classes {list(prediction.classes)[:5]}... and the benchmark's "
                f"{list(truth.classes)[:5]}... share no name"
            )
        self._none = len(truth.classes)  # absent from every ground truth: left out of the mean
        self._matrix = ConfusionMatrix(self._none + 1, truth.ignore)
        rest = _background(truth.classes)
        self._default = self._none if rest is None else rest
        table = np.full(prediction.ignore + 1, self._none, dtype=np.int64)
        table[: len(self._ids)] = [self._default if i is None else i for i in self._ids]
        self._table = table

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        self._matrix.update(self._table[prediction], truth)

    @property
    def _matched(self) -> list[int]:
        return sorted({i for i in self._ids if i is not None})

    def metrics(self) -> dict[str, tuple[float, Better]]:
        return {
            "miou": (self._matrix.miou(), "higher"),
            "miou_matched": (self._matrix.miou(self._matched), "higher"),
            "pixel_accuracy": (self._matrix.pixel_accuracy(), "higher"),
        }

    def protocol(self) -> dict[str, object]:
        iou = zip(self._truth.classes, self._matrix.iou().tolist()[: self._none], strict=True)
        pairs = zip(self._kind.classes, self._ids, strict=True)
        known = set(self._matched)
        missing = [name for i, name in enumerate(self._truth.classes) if i not in known]
        return {
            "ignore_index": self._truth.ignore,
            "miou": "global confusion matrix; classes absent from the ground truth left out",
            "unmatched_expert_classes": [name for name, i in pairs if i is None],
            "unmatched_dataset_classes": missing,
            "unmatched_become": BACKGROUND if self._default != self._none else "no class",
            "class_iou": {name: round(v, 2) if v == v else None for name, v in iou},  # NaN: absent
        }


class DepthTally:
    """AbsRel per image, after alignment in disparity and, for metric disparity, without.

    Lasinger's protocol: 0 < depth < 10 m, least squares per image, disparity at least 1/10 m.
    Pixels without a prediction are left out; their share is stated.
    """

    task = "depth"

    def __init__(self, *, metric: bool) -> None:
        self._metric = metric
        self._aligned: list[float] = []
        self._plain: list[float] = []
        self._pixels = self._predicted = 0

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        mask, known = depth_mask(truth), np.isfinite(prediction)
        self._pixels += int(mask.sum())
        self._predicted += int((mask & known).sum())
        self._aligned.append(absrel(prediction, truth, valid=known))
        if self._metric:
            self._plain.append(unaligned_absrel(prediction, truth, mask & known))

    def metrics(self) -> dict[str, tuple[float, Better]]:
        found: dict[str, tuple[float, Better]] = {"absrel": (_mean(self._aligned), "lower")}
        if self._metric:
            found["absrel_unaligned"] = (_mean(self._plain), "lower")
        return found

    def protocol(self) -> dict[str, object]:
        return {
            "range": list(DEPTH_RANGE),
            "alignment": "absrel: scale and shift per image, least squares in disparity; "
            "absrel_unaligned: none",
            "images_without_valid_pixels": int(np.isnan(self._aligned).sum()),
            "pixels_without_prediction": 1 - self._predicted / max(1, self._pixels),
        }


class NormalsTally:
    """Angles pooled over all pixels with a true normal; an invalid prediction counts 90 degrees."""

    task = "normals"

    def __init__(self) -> None:
        self._errors = AngularErrors()

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        self._errors.update(prediction, truth)

    def metrics(self) -> dict[str, tuple[float, Better]]:
        errors = self._errors
        return {
            "a30": (errors.below(30), "higher"),
            "a22": (errors.below(22.5), "higher"),
            "a11": (errors.below(11.25), "higher"),
            "mean": (errors.mean(), "lower"),
            "median": (errors.median(), "lower"),
        }

    def protocol(self) -> dict[str, object]:
        return {"pooling": "all valid pixels of all images", "invalid_prediction": "90 degrees"}


def match_classes(expert: Sequence[str], dataset: Sequence[str]) -> list[int | None]:
    """For each of the expert's classes the benchmark's id of that name, or None.

    Case, spaces, dashes and underscores do not matter; common synonyms are known.
    """
    ids = {_plain(name): i for i, name in enumerate(dataset)}
    return [ids.get(_plain(name)) for name in expert]


def unaligned_absrel(disparity: np.ndarray, depth: np.ndarray, mask: np.ndarray) -> float:
    """Mean |d' - d| / d over `mask` with d' = 1 / max(disparity, 1 / 10 m); NaN if it is empty.

    `disparity` (H, W) in 1/m, `depth` (H, W) in metres, `mask` (H, W) bool.
    """
    if not mask.any():
        return float("nan")
    true = depth[mask].astype(np.float64)
    found = 1 / np.maximum(disparity[mask].astype(np.float64), 1 / DEPTH_RANGE[1])
    return float(np.mean(np.abs(found - true) / true))


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_\-]+", "", name.lower())
    return SYNONYMS.get(plain, plain)


def _background(classes: Sequence[str]) -> int | None:
    return 0 if _plain(classes[0]) == BACKGROUND else None


def _mean(values: list[float]) -> float:
    """Mean of what is not NaN; NaN where nothing is left."""
    found = np.array([value for value in values if not np.isnan(value)])
    return float(found.mean()) if found.size else float("nan")
