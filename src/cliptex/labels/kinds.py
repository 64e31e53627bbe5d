"""The three kinds of dense label, with every rule that depends on the kind.

| kind          | array                  | invalid              | resampling                   |
|---------------|------------------------|----------------------|------------------------------|
| `ClassMap`    | (H, W) uint8 or uint16 | the id `ignore`      | nearest                      |
| `ScalarField` | (H, W) float32         | NaN                  | bilinear over valid pixels   |
| `UnitVector`  | (H, W, 3) float32      | the vector (0, 0, 0) | bilinear, renormalised       |

Each kind knows how to check, sample (crop, resize and flip in one step), flip and draw its
arrays; nothing outside this package needs to know which rule belongs to which kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cliptex.labels.drawing import class_colours, draw_normals, draw_scalar
from cliptex.labels.sampling import WHOLE, Box, sample_bilinear, sample_nearest

__all__ = ["Box", "ClassMap", "Kind", "ScalarField", "UnitVector", "kind_from_json"]

DEFAULT_FRAME = "right-down-forward-away"
# A sum of unit vectors shorter than this times the sum of their weights has no direction worth
# keeping: the neighbours point against each other.
DEGENERATE = 1e-3
UNIT_PRECISION = 1e-6  # of a squared length: what normalising in float32 leaves


@dataclass(frozen=True)
class ClassMap:
    """Integer class ids; `classes` names ids 0, 1, ...; `ignore` marks pixels without a class.

    Background, where a model has one, is class 0. More than 255 classes need uint16 and an
    `ignore` of 65535.
    """

    classes: tuple[str, ...]
    ignore: int = 255

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if not self.classes:
            raise ValueError("a class map needs at least one class")
        if self.ignore not in (255, 65535) or len(self.classes) > self.ignore:
            raise ValueError(
                f"ignore must be 255 or 65535 and no class may have that id; "
                f"got ignore={self.ignore} with {len(self.classes)} classes"
            )

    @property
    def dtype(self) -> np.dtype:
        """uint8, or uint16 where `ignore` is 65535."""
        return np.dtype(np.uint8 if self.ignore == 255 else np.uint16)

    def check(self, array: np.ndarray) -> np.ndarray:
        """The array in canonical form; ValueError where ids are unknown or the shape is wrong."""
        array = np.asarray(array)
        if array.ndim != 2 or array.dtype.kind not in "iu" or array.size == 0:
            raise ValueError(f"a class map is (H, W) integer, got {array.shape} {array.dtype}")
        unknown = ((array < 0) | (array >= len(self.classes))) & (array != self.ignore)
        if unknown.any():
            raise ValueError(
                f"class id {int(array[unknown][0])} is neither below {len(self.classes)} "
                f"nor the ignore id {self.ignore}"
            )
        return np.ascontiguousarray(array, dtype=self.dtype)

    def valid(self, array: np.ndarray) -> np.ndarray:
        """Pixels with a class; (H, W) bool."""
        return array != self.ignore

    def sample(
        self, array: np.ndarray, box: Box, size: tuple[int, int], flip: bool = False
    ) -> np.ndarray:
        """Crop `box`, resize to `size` (h, w) by nearest pixel, then flip left-right if asked."""
        return sample_nearest(array, box, size, flip=flip)

    def resize(self, array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The whole label at `size` (h, w)."""
        return self.sample(array, WHOLE, size)

    def flip(self, array: np.ndarray) -> np.ndarray:
        """Left-right mirror image."""
        return np.ascontiguousarray(array[:, ::-1])

    def draw(self, array: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 in the PASCAL VOC palette; ignored pixels pale."""
        return class_colours(self.ignore)[array]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "class-map", "classes": list(self.classes), "ignore": self.ignore}


@dataclass(frozen=True)
class ScalarField:
    """One float per pixel in `unit`: "1/m", "m", or "relative disparity"; invalid = NaN."""

    unit: str

    def check(self, array: np.ndarray) -> np.ndarray:
        """(H, W) float32 with infinities turned to NaN; ValueError where the shape is wrong."""
        array = np.asarray(array)
        if array.ndim != 2 or array.dtype.kind not in "fiu" or array.size == 0:
            raise ValueError(f"a scalar field is (H, W) float, got {array.shape} {array.dtype}")
        with np.errstate(over="ignore"):  # float64 beyond float32's range becomes inf, then NaN
            array = np.ascontiguousarray(array, dtype=np.float32)
        finite = np.isfinite(array)
        return array if finite.all() else np.where(finite, array, np.float32(np.nan))

    def valid(self, array: np.ndarray) -> np.ndarray:
        """Finite pixels; (H, W) bool."""
        return np.isfinite(array)

    def sample(
        self, array: np.ndarray, box: Box, size: tuple[int, int], flip: bool = False
    ) -> np.ndarray:
        """Crop and resize bilinearly over valid pixels only, then flip left-right if asked.

        Weights are renormalised over the valid ones of the four neighbours; NaN where none is.
        """
        valid = np.isfinite(array)
        if valid.all():
            return sample_bilinear(array, box, size, flip=flip)
        total = sample_bilinear(np.where(valid, array, np.float32(0)), box, size, flip=flip)
        weight = sample_bilinear(valid, box, size, flip=flip)
        out = np.full_like(total, np.nan)
        return np.divide(total, weight, out=out, where=weight > 0)

    def resize(self, array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The whole label at `size` (h, w)."""
        return self.sample(array, WHOLE, size)

    def flip(self, array: np.ndarray) -> np.ndarray:
        """Left-right mirror image."""
        return np.ascontiguousarray(array[:, ::-1])

    def draw(self, array: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, dark blue (2nd percentile) to yellow (98th); invalid pixels black."""
        return draw_scalar(array)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "scalar-field", "unit": self.unit}


@dataclass(frozen=True)
class UnitVector:
    """Surface normals of length 1 in `frame`; invalid = (0, 0, 0).

    The only frame of a label is right, down, forward, pointing away from the camera: a wall that
    faces the camera is (0, 0, 1). Experts convert to it.
    """

    frame: str = DEFAULT_FRAME

    def __post_init__(self) -> None:
        if self.frame != DEFAULT_FRAME:
            raise ValueError(f"labels are kept in the frame {DEFAULT_FRAME}, got {self.frame!r}")

    def check(self, array: np.ndarray) -> np.ndarray:
        """(H, W, 3) float32 of length 1 or 0; ValueError where the shape is wrong.

        Vectors that are not finite or shorter than 1e-6 become invalid, others are normalised;
        what has its length already, to float32's precision, is given back as it is.
        """
        array = np.asarray(array)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "fiu":
            raise ValueError(f"normals are (H, W, 3) float, got {array.shape} {array.dtype}")
        if array.size == 0:
            raise ValueError(f"normals are empty: {array.shape}")
        with np.errstate(over="ignore"):
            vectors = np.ascontiguousarray(array, np.float32)
        squared = _squared_length(vectors)
        low, high = squared.min(), squared.max()  # NaN where there is one
        if low >= 1 - UNIT_PRECISION and high <= 1 + UNIT_PRECISION:
            return vectors
        if high < np.inf:
            vectors = np.array(array, np.float32)
        else:  # not finite, or longer than float32 can square
            vectors = np.array(array, np.float64)
            squared = _squared_length(vectors)
        usable = np.isfinite(squared) & (squared > 1e-12)
        if not usable.all():
            vectors[~usable] = 0
            squared[~usable] = 1
        length = np.sqrt(squared, out=squared)
        for plane in np.moveaxis(vectors, 2, 0):  # one by one: a third of the time of all at once
            plane /= length
        return vectors.astype(np.float32, copy=False)

    def valid(self, array: np.ndarray) -> np.ndarray:
        """Pixels with a direction; (H, W) bool. NaN counts as invalid."""
        return _squared_length(array) > 0.25

    def sample(
        self, array: np.ndarray, box: Box, size: tuple[int, int], flip: bool = False
    ) -> np.ndarray:
        """Crop and resize bilinearly, renormalise, then flip (negating x) if asked.

        Invalid vectors carry no weight; the result is invalid where no valid neighbour exists
        or where the neighbours cancel out.
        """
        valid = self.valid(array)
        if valid.all():
            total = sample_bilinear(array, box, size, flip=flip)
            limit: np.ndarray | float = DEGENERATE**2
        else:
            masked = np.where(valid[:, :, None], array, np.float32(0))
            total = sample_bilinear(masked, box, size, flip=flip)
            limit = (DEGENERATE * sample_bilinear(valid, box, size, flip=flip)) ** 2
        length = _squared_length(total)
        lost = ~(length > limit)
        length[lost] = 1
        np.sqrt(length, out=length)
        for plane in np.moveaxis(total, 2, 0):
            plane /= length
        total[lost] = 0
        if flip:
            _negate_x(total)
        return total

    def resize(self, array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The whole label at `size` (h, w)."""
        return self.sample(array, WHOLE, size)

    def flip(self, array: np.ndarray) -> np.ndarray:
        """Left-right mirror image: pixels change places and x changes its sign."""
        mirrored = np.ascontiguousarray(array[:, ::-1])
        _negate_x(mirrored)
        return mirrored

    def draw(self, array: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, RGB = (n + 1) / 2; invalid pixels black."""
        return draw_normals(array, self.valid(array))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "unit-vector", "frame": self.frame}


Kind = ClassMap | ScalarField | UnitVector


def kind_from_json(data: Mapping[str, Any]) -> Kind:
    """The kind that `to_json` described; ValueError names what is wrong."""
    fields = dict(data)
    name = fields.pop("kind", None)
    makers = {"class-map": ClassMap, "scalar-field": ScalarField, "unit-vector": UnitVector}
    if name not in makers:
        raise ValueError(f"unknown kind of label {name!r}; known: {', '.join(makers)}")
    try:
        return makers[name](**fields)
    except TypeError as error:
        raise ValueError(f"kind {name!r} does not understand {fields}: {error}") from None


def _squared_length(array: np.ndarray) -> np.ndarray:
    """Squared length of each vector; (H, W, 3) -> (H, W)."""
    x, y, z = np.moveaxis(array, 2, 0)
    with np.errstate(over="ignore"):  # of input that `check` refuses next
        total = x * x
        total += y * y
        total += z * z
    return total


def _negate_x(array: np.ndarray) -> None:
    """Negate x in place, keeping +0.0 so that flipping twice gives the very same bytes."""
    x = array[:, :, 0]
    np.subtract(np.float32(0), x, out=x)
