"""From raw predictions at the ground truth's size to metrics, one scorer per kind of label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

from cliptex.labels.kinds import ClassMap
from cliptex.metrics import AngularErrors, ConfusionMatrix, absrel, counts_of, depth_mask

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Score:
    """A metric's value and which way is better."""

    value: float
    better: Better


class ScoringRules(Protocol):
    """What of a probe's configuration decides how predictions are scored."""

    @property
    def depth_range(self) -> tuple[float, float]: ...

    @property
    def evaluation_crop(self) -> tuple[int, int, int, int] | None: ...

    @property
    def things(self) -> Sequence[str] | None: ...


class Scorer(Protocol):
    """Adds up one head's predictions over images; `metrics` lists the one to select by first."""

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        """One image: raw outputs (K, H, W) and its ground truth in the kind's array form."""
        ...

    def metrics(self) -> dict[str, Score]: ...

    def per_image(self) -> dict[str, np.ndarray]: ...

    def protocol(self) -> dict[str, object]: ...


class SegmentationScorer:
    """mIoU over all classes and over things, from argmax at the ground truth's size."""

    def __init__(self, kind: ClassMap, rules: ScoringRules) -> None:
        self._kind = kind
        self._crop = rules.evaluation_crop
        self._confusion = ConfusionMatrix(len(kind.classes), kind.ignore)
        self._areas: list[np.ndarray] = []
        self._things = thing_ids(kind.classes, rules.things)

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        ids = prediction.max(0).indices.numpy()  # four times faster than argmax over planes
        inside = crop_mask(target, self._crop)
        if inside is not None:
            target = np.where(inside, target, self._kind.ignore)
        self._areas.append(np.stack(counts_of(self._confusion.update(ids, target)), axis=-1))

    def metrics(self) -> dict[str, Score]:
        scores = {"miou": Score(self._confusion.miou(), "higher")}
        if self._things:
            scores["miou_things"] = Score(self._confusion.miou(self._things), "higher")
        return scores

    def per_image(self) -> dict[str, np.ndarray]:
        intersection, predicted, truth = np.moveaxis(np.stack(self._areas), -1, 0)  # (N, C) each
        union = (predicted + truth - intersection) * (truth.sum(0) > 0)
        pairs = np.stack([intersection, union], axis=-1).astype(np.int32)  # (N, C, 2)
        both = {"miou": pairs}
        return {**both, "miou_things": pairs[:, self._things]} if self._things else both

    def protocol(self) -> dict[str, object]:
        truth = self._confusion.counts.sum(1)
        absent = [name for name, n in zip(self._kind.classes, truth, strict=True) if n == 0]
        iou = zip(self._kind.classes, self._confusion.iou().tolist(), strict=True)
        return {
            "ignore_index": self._kind.ignore,
            "crop": self._crop,
            "miou": "global confusion matrix; classes absent from the ground truth left out",
            "classes": len(self._kind.classes),
            "absent_classes": absent,
            "things": len(self._things),
            "class_iou": {name: round(v, 2) if v == v else None for name, v in iou},  # NaN: absent
        }


class DepthScorer:
    """AbsRel after per-image alignment in disparity (Lasinger's NYUv2 protocol)."""

    def __init__(self, rules: ScoringRules) -> None:
        self._range = rules.depth_range
        self._crop = rules.evaluation_crop
        self._values: list[float] = []

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        inside = crop_mask(target, self._crop)
        value = absrel(prediction[0].numpy(), target, valid=inside, bounds=self._range)
        self._values.append(value)

    def metrics(self) -> dict[str, Score]:
        values = np.array(self._values)
        some = values[~np.isnan(values)]
        return {"absrel": Score(float(some.mean()) if some.size else float("nan"), "lower")}

    def per_image(self) -> dict[str, np.ndarray]:
        return {"absrel": np.array(self._values)}

    def protocol(self) -> dict[str, object]:
        return {
            "range": list(self._range),
            "crop": self._crop,
            "alignment": "scale and shift per image, least squares in disparity",
            "images_without_valid_pixels": int(np.isnan(self._values).sum()),
        }


class NormalsScorer:
    """Angles between the first three outputs and the true normal, pooled over pixels."""

    NAMES = {"a11": 11.25, "a22": 22.5, "a30": 30.0}

    def __init__(self, rules: ScoringRules) -> None:
        self._crop = rules.evaluation_crop
        self._errors = AngularErrors()
        self._angles: dict[str, list[float]] = {name: [] for name in ("mean", *self.NAMES)}

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        normals = prediction[:3].permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)
        angles = self._errors.update(normals, target, crop_mask(target, self._crop))
        empty = not angles.size
        self._angles["mean"].append(float("nan") if empty else float(angles.mean()))
        for name, limit in self.NAMES.items():
            share = float("nan") if empty else 100 * float((angles < limit).mean())
            self._angles[name].append(share)

    def metrics(self) -> dict[str, Score]:
        errors = self._errors
        shares = {n: Score(errors.below(limit), "higher") for n, limit in self.NAMES.items()}
        return {
            "a30": shares["a30"],
            "a22": shares["a22"],
            "a11": shares["a11"],
            "mean": Score(errors.mean(), "lower"),
            "median": Score(errors.median(), "lower"),
            "rmse": Score(errors.rmse(), "lower"),
        }

    def per_image(self) -> dict[str, np.ndarray]:
        return {name: np.array(values) for name, values in self._angles.items()}

    def protocol(self) -> dict[str, object]:
        return {"crop": self._crop, "pooling": "all valid pixels of all images"}


def thing_ids(classes: Sequence[str], things: Sequence[str] | None) -> list[int]:
    """Ids of the classes averaged in `miou_things`; ValueError names an unknown class."""
    if things is None:
        rest = [i for i, name in enumerate(classes) if name != "background"]
        return rest if len(rest) < len(classes) else []
    unknown = sorted(set(things) - set(classes))
    if unknown:
        raise ValueError(f"things {unknown} are not among the classes {list(classes)}")
    return [i for i, name in enumerate(classes) if name in set(things)]


def crop_mask(target: np.ndarray, crop: tuple[int, int, int, int] | None) -> np.ndarray | None:
    """(H, W) bool, True inside (top, bottom, left, right); None without a crop."""
    if crop is None:
        return None
    top, bottom, left, right = crop
    mask = np.zeros(target.shape[:2], dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def disparity_of(depth: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """1 / depth in 1/m, (H, W) float32; NaN outside `bounds`."""
    mask = depth_mask(depth, bounds)
    return np.divide(1.0, depth, out=np.full(depth.shape, np.nan, np.float32), where=mask)
