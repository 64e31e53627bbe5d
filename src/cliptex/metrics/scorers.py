"""From predictions to measures: one scorer per task, for heads of probes and for labels alike.

A scorer adds up images. Heads of probes give raw outputs, tensors on any device (`add`); labels are
arrays in their kind's form (`add_label`). The rules of scoring are a `Protocol`, written into rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal
from typing import Protocol as Interface

import numpy as np
from pydantic import BaseModel, ConfigDict

from cliptex.metrics.confusion import ConfusionMatrix, ImageConfusion
from cliptex.metrics.depth import DEPTH_RANGE, DepthErrors, depth_errors, depth_mask
from cliptex.metrics.means import mean_of_present
from cliptex.metrics.normals import AngularErrors
from cliptex.metrics.ranking import MEAN_PER_CLASS, RULE_PER_CLASS, Accuracy

if TYPE_CHECKING:  # labels are scored without torch
    from torch import Tensor

BACKGROUND = "background"
MIOU = "global confusion matrix; classes absent from the ground truth left out"
POOLING = "all valid pixels of all images"
Crop = tuple[int, int, int, int]
Depths = Literal["rawDepths", "depths"]


class Protocol(BaseModel):
    """Rules of scoring, written into every row that follows them.

    name: what rows, tables and `protocol` call it; "" for the whole picture.
    crop: (top, bottom, left, right) bounds in pixels of the part that counts; None is all of it.
    depth_range: metres; of depth, only pixels strictly inside count, and predictions are clamped
        to it.
    depths: of NYUv2, which ground truth is meant: `rawDepths` are what the sensor saw, with holes;
        `depths` are in-painted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    crop: Crop | None = None
    depth_range: tuple[float, float] = (0.0, 10.0)
    depths: Depths | None = None


WHOLE = Protocol()
LASINGER = Protocol(name="lasinger", depths="rawDepths")
"""Lasinger et al. 2019 on NYUv2: raw depths, no crop, 0 < d < 10 m."""
EIGEN = Protocol(name="eigen", crop=(45, 471, 41, 601), depth_range=(1e-3, 10.0), depths="depths")
"""The convention of supervised depth (Eigen et al. 2014; ZoeDepth, DPT): in-painted depths, their
crop of pictures of 480 x 640. Predictions that know no scale are aligned all the same."""
EIGEN_RAW = EIGEN.model_copy(update={"name": "eigen-raw", "depths": "rawDepths"})
"""Crop and range of `EIGEN` on what the sensor saw: no in-painted pixel counts."""
DEPTH_PROTOCOLS: dict[str, Protocol] = {p.name: p for p in (LASINGER, EIGEN, EIGEN_RAW)}

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Score:
    """A metric's value, which way is better, and `rule`: what it is a mean of, for its row."""

    value: float
    better: Better
    rule: str = ""


class Classes(Interface):
    """What a scorer knows of class maps: names of ids 0, 1, ..., and the id that does not count."""

    @property
    def classes(self) -> Sequence[str]: ...

    @property
    def ignore(self) -> int: ...


class Scorer(Interface):
    """Adds up one head's predictions over images; `metrics` lists the one to select by first.

    not_finite: images whose prediction holds NaN or infinity. From the first one on all metrics
    are NaN, so that such a head loses every choice, and `rows_of` refuses it.
    """

    not_finite: int

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        """One image: raw outputs (K, H, W) on any device and its ground truth, as its kind has it.

        H, W are those of the ground truth.
        """
        ...

    def metrics(self) -> dict[str, Score]: ...

    def per_image(self) -> dict[str, np.ndarray]:
        """Metric -> what every image adds to it, as `cliptex.per_image.save_per_image` wants it."""
        ...

    def protocol(self) -> dict[str, object]:
        """What the values depend on, JSON-able; `name` is that of the scoring `Protocol`."""
        ...


class _Scorer:
    """What the scorers do with predictions that are not finite: see `Scorer`."""

    def __init__(self) -> None:
        self.not_finite = 0

    def metrics(self) -> dict[str, Score]:
        scores = self._scores()
        if not self.not_finite:
            return scores
        return {name: replace(score, value=float("nan")) for name, score in scores.items()}

    def _scores(self) -> dict[str, Score]:
        raise NotImplementedError

    def _usable(self, prediction: Tensor) -> bool:
        """False, and counted, where an image's prediction is not finite."""
        usable = bool(prediction.isfinite().all())
        self.not_finite += not usable
        return usable


class SegmentationScorer(_Scorer):
    """mIoU over all classes, over things, and with the background left out, in one pass.

    miou: all classes. miou_things: the mean over some classes of the same confusion matrix.
    miou_foreground, where there is a class `background`: pixels that truly are background do not
    count and no other pixel may be called so, as with the 20 classes of PASCAL VOC alone.
    """

    def __init__(
        self, kind: Classes, protocol: Protocol, things: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self._kind = kind
        self._protocol = protocol
        self._things = thing_ids(kind.classes, things)
        self._named = things is not None
        self._all = ImageConfusion(len(kind.classes), kind.ignore)
        rest = [i for i, name in enumerate(kind.classes) if name != BACKGROUND]
        self._rest = rest if 0 < len(rest) < len(kind.classes) else []
        self._foreground = ImageConfusion(len(self._rest), kind.ignore)
        # Class id -> its place among the classes without background, which is ignored.
        self._place = np.full(kind.ignore + 1, kind.ignore)
        self._place[self._rest] = np.arange(len(self._rest))

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        best = prediction.max(0)  # four times faster than argmax over planes
        if not self._usable(best.values):  # a NaN is the greatest of its pixel
            return
        ids = best.indices.cpu().numpy()
        inside = crop_mask(target, self._protocol.crop)
        if inside is not None:
            target = np.where(inside, target, self._kind.ignore)
        self._all.update(ids, target)
        if self._rest:
            ids = prediction[self._rest].max(0).indices.cpu().numpy()
            self._foreground.update(ids, self._place[target])

    def _scores(self) -> dict[str, Score]:
        confusion = self._all
        rule = f"mean over {len(self._kind.classes)} classes"
        scores = {"miou": Score(confusion.miou(), "higher", rule)}
        if self._things:
            rule = f"mean over {len(self._things)} of {len(self._kind.classes)} classes"
            scores["miou_things"] = Score(confusion.miou(self._things), "higher", rule)
        if self._rest:
            rule = f"mean over {len(self._rest)} classes; background ignored, never predicted"
            value = self._foreground.miou()
            scores["miou_foreground"] = Score(value, "higher", rule)
        return scores

    def per_image(self) -> dict[str, np.ndarray]:
        areas = self._all.areas()
        found = {"miou": areas}
        if self._things:
            found["miou_things"] = areas[:, self._things]
        if self._rest:
            found["miou_foreground"] = self._foreground.areas()
        return found

    def protocol(self) -> dict[str, object]:
        return {
            **named(self._protocol),
            "ignore_index": self._kind.ignore,
            "miou": MIOU,
            "classes": len(self._kind.classes),
            "things": len(self._things),
            **({"thing_classes": self._thing_classes()} if self._named else {}),
            **self._all.by_class(self._kind.classes),
        }

    def _thing_classes(self) -> list[str]:
        return [self._kind.classes[i] for i in self._things]


class DepthScorer(_Scorer):
    """Errors after per-image alignment in disparity, means over images; AbsRel comes first."""

    NAMES: dict[str, tuple[str, Better]] = {
        "absrel": ("absrel", "lower"),
        "rmse": ("depth_rmse", "lower"),
        "log10": ("depth_log10", "lower"),
        "silog": ("depth_silog", "lower"),
        "d1": ("depth_d1", "higher"),
        "d2": ("depth_d2", "higher"),
        "d3": ("depth_d3", "higher"),
    }

    def __init__(self, protocol: Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._errors: list[DepthErrors] = []

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        if not self._usable(prediction[0]):
            return
        inside = crop_mask(target, self._protocol.crop)
        bounds = self._protocol.depth_range
        guess = prediction[0].cpu().numpy()
        self._errors.append(depth_errors(guess, target, valid=inside, bounds=bounds))

    def _scores(self) -> dict[str, Score]:
        images = self.per_image()
        better = dict(self.NAMES.values())
        return {
            name: Score(float(mean_of_present(values)), better[name])
            for name, values in images.items()
        }

    def per_image(self) -> dict[str, np.ndarray]:
        return {
            self.NAMES[field.name][0]: np.array([getattr(e, field.name) for e in self._errors])
            for field in fields(DepthErrors)
        }

    def protocol(self) -> dict[str, object]:
        return {
            **named(self._protocol),
            "depths": self._protocol.depths,
            "range": list(self._protocol.depth_range),
            "alignment": "scale and shift per image, least squares in disparity",
            "images_without_valid_pixels": self._without_pixels(),
        }

    def _without_pixels(self) -> int:
        return sum(e.absrel != e.absrel for e in self._errors)  # NaN


class NormalsScorer(_Scorer):
    """Angles between the first three outputs and the true normal, pooled over pixels."""

    NAMES = {"a30": 30.0, "a22": 22.5, "a11": 11.25, "a7": 7.5, "a5": 5.0}

    def __init__(self, protocol: Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._errors = AngularErrors()
        # Per image: pixels below each threshold, sum of angles, of their squares, pixels.
        self._sums: list[list[float]] = []

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        if not self._usable(prediction[:3]):
            return
        normals = prediction[:3].permute(1, 2, 0).cpu().numpy()  # (3, H, W) -> (H, W, 3)
        angles = self._errors.update(normals, target, crop_mask(target, self._protocol.crop))
        below = [float((angles < limit).sum()) for limit in self.NAMES.values()]
        squares = float((angles**2).sum())
        self._sums.append([*below, float(angles.sum()), squares, float(angles.size)])

    def _scores(self) -> dict[str, Score]:
        errors = self._errors
        return {
            **{n: Score(errors.below(limit), "higher") for n, limit in self.NAMES.items()},
            "mean": Score(errors.mean(), "lower"),
            "median": Score(errors.median(), "lower"),
            "rmse": Score(errors.rmse(), "lower"),
        }

    def per_image(self) -> dict[str, np.ndarray]:
        """Numerators and denominators (N, 2) of what is a ratio of sums; a median is none."""
        sums = np.array(self._sums).reshape(-1, len(self.NAMES) + 3)
        names = [*self.NAMES, "mean", "rmse"]
        return {name: sums[:, [i, -1]] for i, name in enumerate(names)}

    def protocol(self) -> dict[str, object]:
        return {**named(self._protocol), "pooling": POOLING}


class AccuracyScorer(_Scorer):
    """`Accuracy` of raw outputs (K, 1, 1), the ground truth a class index."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._accuracy = Accuracy(classes)

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        if not self._usable(prediction):
            return
        scores = prediction.reshape(1, -1).cpu().numpy()
        self._accuracy.update(scores, np.asarray(target).reshape(1))

    def _scores(self) -> dict[str, Score]:
        rules = {MEAN_PER_CLASS: RULE_PER_CLASS}
        values = self._accuracy.values()
        return {name: Score(v, "higher", rules.get(name, "")) for name, v in values.items()}

    def per_image(self) -> dict[str, np.ndarray]:
        return self._accuracy.per_image()

    def protocol(self) -> dict[str, object]:
        return {"classes": self._accuracy.classes, **self._accuracy.ties()}


class LabelScorer(Interface):
    """Adds up labels of one kind over images: those of an expert, or of a store."""

    def add_label(self, label: np.ndarray, target: np.ndarray) -> None:
        """One image: a label and its ground truth, of one size (H, W), in their kinds' forms."""
        ...

    def metrics(self) -> dict[str, Score]: ...

    def protocol(self) -> dict[str, object]:
        """What the values depend on, JSON-able."""
        ...


class SegmentationLabelScorer:
    """mIoU over all of a benchmark's classes, on one confusion matrix of all pixels.

    ids: for each class of the labels the benchmark's id, None where it knows no such class; that
    is the benchmark's `background`, or no class at all where it has none (then always wrong, as is
    a pixel without a label). `miou_matched` is the mean over the classes that the labels know.
    """

    def __init__(
        self,
        labels: Classes,
        truth: Classes,
        ids: Sequence[int | None],
        background: int | None,
    ) -> None:
        self._names, self._ids, self._truth = labels.classes, ids, truth
        self._none = len(truth.classes)  # absent from every ground truth: left out of the mean
        self._matrix = ConfusionMatrix(self._none + 1, truth.ignore)
        self._rest = self._none if background is None else background
        self._table = np.full(labels.ignore + 1, self._none, dtype=np.int64)
        self._table[: len(ids)] = [self._rest if i is None else i for i in ids]

    def add_label(self, label: np.ndarray, target: np.ndarray) -> None:
        self._matrix.update(self._table[label], target)

    @property
    def _matched(self) -> list[int]:
        return sorted({i for i in self._ids if i is not None})

    def metrics(self) -> dict[str, Score]:
        return {
            "miou": Score(self._matrix.miou(), "higher"),
            "miou_matched": Score(self._matrix.miou(self._matched), "higher"),
            "pixel_accuracy": Score(self._matrix.pixel_accuracy(), "higher"),
        }

    def protocol(self) -> dict[str, object]:
        iou = zip(self._truth.classes, self._matrix.iou().tolist()[: self._none], strict=True)
        pairs = zip(self._names, self._ids, strict=True)
        known = set(self._matched)
        return {
            "ignore_index": self._truth.ignore,
            "miou": MIOU,
            "unmatched_expert_classes": [name for name, i in pairs if i is None],
            "unmatched_dataset_classes": [
                name for i, name in enumerate(self._truth.classes) if i not in known
            ],
            "unmatched_become": BACKGROUND if self._rest != self._none else "no class",
            "class_iou": {name: round(v, 2) if v == v else None for name, v in iou},  # NaN: absent
        }


class DepthLabelScorer(DepthScorer):
    """AbsRel per image, after alignment in disparity and, for disparity in 1/m, without.

    Lasinger's protocol, with disparity of at least 1/10 m. Pixels without a prediction are left
    out; their share is stated.
    """

    def __init__(self, *, metric: bool) -> None:
        super().__init__(LASINGER)
        self._metric = metric
        self._unaligned: list[float] = []
        self._pixels = self._predicted = 0

    def add_label(self, label: np.ndarray, target: np.ndarray) -> None:
        mask, known = depth_mask(target), np.isfinite(label)
        self._pixels += int(mask.sum())
        self._predicted += int((mask & known).sum())
        self._errors.append(depth_errors(label, target, valid=known))
        if self._metric:
            self._unaligned.append(unaligned_absrel(label, target, mask & known))

    def metrics(self) -> dict[str, Score]:
        found = {"absrel": super().metrics()["absrel"]}
        if self._metric:
            mean = float(mean_of_present(np.array(self._unaligned)))
            found["absrel_unaligned"] = Score(mean, "lower")
        return found

    def protocol(self) -> dict[str, object]:
        return {
            "range": list(DEPTH_RANGE),
            "alignment": "absrel: scale and shift per image, least squares in disparity; "
            "absrel_unaligned: none",
            "images_without_valid_pixels": self._without_pixels(),
            "pixels_without_prediction": 1 - self._predicted / max(1, self._pixels),
        }


class NormalsLabelScorer(NormalsScorer):
    """Angles pooled over all pixels with a true normal; an invalid prediction counts 90 degrees."""

    MEASURES = ("a30", "a22", "a11", "mean", "median")

    def __init__(self) -> None:
        super().__init__(WHOLE)

    def add_label(self, label: np.ndarray, target: np.ndarray) -> None:
        self._errors.update(label, target)

    def metrics(self) -> dict[str, Score]:
        found = super().metrics()
        return {name: found[name] for name in self.MEASURES}

    def protocol(self) -> dict[str, object]:
        return {"pooling": POOLING, "invalid_prediction": "90 degrees"}


def named(protocol: Protocol) -> dict[str, object]:
    """What rows of all tasks say of the scoring rules."""
    name = {"name": protocol.name} if protocol.name else {}
    return {**name, "crop": protocol.crop}


def thing_ids(classes: Sequence[str], things: Sequence[str] | None) -> list[int]:
    """Ids of the classes averaged in `miou_things`; ValueError names an unknown class."""
    if things is None:
        rest = [i for i, name in enumerate(classes) if name != BACKGROUND]
        return rest if len(rest) < len(classes) else []
    unknown = sorted(set(things) - set(classes))
    if unknown:
        raise ValueError(f"things {unknown} are not among the classes {list(classes)}")
    return [i for i, name in enumerate(classes) if name in set(things)]


def unaligned_absrel(disparity: np.ndarray, depth: np.ndarray, mask: np.ndarray) -> float:
    """Mean |d' - d| / d over `mask` with d' = 1 / max(disparity, 1 / 10 m); NaN if it is empty.

    `disparity` (H, W) in 1/m, `depth` (H, W) in metres, `mask` (H, W) bool.
    """
    if not mask.any():
        return float("nan")
    true = depth[mask].astype(np.float64)
    found = 1 / np.maximum(disparity[mask].astype(np.float64), 1 / DEPTH_RANGE[1])
    return float(np.mean(np.abs(found - true) / true))


def crop_mask(target: np.ndarray, crop: Crop | None) -> np.ndarray | None:
    """(H, W) bool, True inside (top, bottom, left, right); None without a crop.

    ValueError where the crop does not lie in the picture: it is meant for pictures of one size.
    """
    if crop is None:
        return None
    top, bottom, left, right = crop
    height, width = target.shape[:2]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(
            f"the crop of rows {top}:{bottom}, columns {left}:{right} does not lie in a ground "
            f"truth of {height} x {width}; choose another `protocol`"
        )
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask
