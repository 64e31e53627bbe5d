"""From raw predictions at the ground truth's size to metrics, one scorer per kind of label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from cliptex.labels.kinds import ClassMap
from cliptex.metrics import (
    MEAN_PER_CLASS,
    RULE_PER_CLASS,
    Accuracy,
    AngularErrors,
    DepthErrors,
    ImageConfusion,
    depth_errors,
    mean_of_present,
)
from cliptex.probes.protocol import Protocol
from cliptex.probes.scores import Better, Score, crop_mask

BACKGROUND = "background"


class _Scorer:
    """What the scorers do with predictions that are not finite: see `cliptex.probes.scores`."""

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
        usable = bool(torch.isfinite(prediction).all())
        self.not_finite += not usable
        return usable


class SegmentationScorer(_Scorer):
    """mIoU over all classes, over things, and with the background left out, in one pass.

    miou: all classes. miou_things: the mean over some classes of the same confusion matrix.
    miou_foreground, where there is a class `background`: pixels that truly are background do not
    count and no other pixel may be called so, as with the 20 classes of PASCAL VOC alone.
    """

    def __init__(
        self, kind: ClassMap, protocol: Protocol, things: Sequence[str] | None = None
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
        self._place = np.full(kind.ignore + 1, kind.ignore, kind.dtype)
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
            "miou": "global confusion matrix; classes absent from the ground truth left out",
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
            "images_without_valid_pixels": sum(e.absrel != e.absrel for e in self._errors),
        }


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
        return {**named(self._protocol), "pooling": "all valid pixels of all images"}


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
