"""Unit vectors: surface normals per pixel, resampled bilinearly and normalised again.

The bounds of the codecs: an octahedral code moves p, |p| >= 1 / sqrt(3), by at most
(0.5, 0.5, 1) / 90, so by at most sqrt(1.5) * sqrt(3) / 90 rad = 1.351 degrees. In RGB each
component is off by at most 0.5 / 127, the vector by sqrt(3) times that, and asin(0.00682) = 0.391
degrees. Both hold the six axes exactly, so that walls and floors stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cliptex.labels.codecs import Codec, Encoded, png_bytes, png_pixels, two_planes
from cliptex.labels.kind import Difference, Kind, Tolerance, invalid_in_one
from cliptex.labels.sampling import Box, sample_bilinear
from cliptex.metrics import angular_error
from cliptex.metrics.scorers import (
    LabelScorer,
    NormalsLabelScorer,
    NormalsScorer,
    Protocol,
    Scorer,
)

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_FRAME = "right-down-forward-away"
# A sum of unit vectors shorter than this times the sum of their weights has no direction worth
# keeping: the neighbours point against each other.
DEGENERATE = 1e-3
UNIT_PRECISION = 1e-6  # of a squared length: what normalising in float32 leaves
FACING = 0.9  # least share of an expert's normals that point away from the camera
OCTAHEDRAL_STEPS = 90  # from the centre to a border of the octahedral square
OCTAHEDRAL_ERROR_DEGREES = 1.36
RGB_ERROR_DEGREES = 0.40

_RGB_TABLE = ((np.arange(256) - 128) / 127).astype(np.float32)


@dataclass(frozen=True)
class UnitVector(Kind):
    """Surface normals of length 1 in `frame`; invalid = (0, 0, 0).

    The only frame of a label is right, down, forward, pointing away from the camera: a wall that
    faces the camera is (0, 0, 1). Experts convert to it.
    """

    name: ClassVar[str] = "unit-vector"
    task: ClassVar[str] = "normals"
    in_camera_axes: ClassVar[bool] = True
    probe_loss_name: ClassVar[str] = "NLL-AngMF"

    frame: str = DEFAULT_FRAME

    def __post_init__(self) -> None:
        if self.frame != DEFAULT_FRAME:
            raise ValueError(f"labels are kept in the frame {DEFAULT_FRAME}, got {self.frame!r}")

    @property
    def invalid(self) -> float:
        return 0.0

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

    def flip(self, array: np.ndarray) -> np.ndarray:
        """Left-right mirror image: pixels change places and x changes its sign."""
        mirrored = np.ascontiguousarray(array[:, ::-1])
        _negate_x(mirrored)
        return mirrored

    @property
    def codecs(self) -> Mapping[str, Codec]:
        return _CODECS

    def draw(self, array: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, RGB = (n + 1) / 2; invalid pixels black."""
        colours = np.rint((np.nan_to_num(array) + 1) * 127.5).clip(0, 255).astype(np.uint8)
        colours[~self.valid(array)] = 0
        return colours

    def legend(self, array: np.ndarray) -> list[tuple[str, str]]:
        return [("#ff8080", "right"), ("#80ff80", "down"), ("#8080ff", "forward")]

    def _distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Angles in degrees."""
        return angular_error(a, b)

    def within(self, found: Difference, tolerance: Tolerance) -> bool:
        return found.validity >= tolerance.equal and found.mean <= tolerance.degrees

    def describe(self, found: Difference) -> str:
        text = f"{found.mean:.3g} degrees on mean, {found.worst:.3g} at most"
        return text + invalid_in_one(found)

    def error_text(self, found: Difference) -> tuple[str, str]:
        return f"{found.mean:.3f} degrees", f"{found.worst:.3f}"

    def _support(self, values: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """1 - angle / 90 degrees, at least 0: the scale on which NLL-AngMF's confidence is given.

        The cosine would still call 25 degrees an agreement of 0.9.
        """
        return angular_agreement(a, b)

    def plausible(self, values: np.ndarray) -> tuple[bool, str]:
        away = float((values[:, 2] > 0).mean())
        return away >= FACING, f"{100 * away:.1f} % of normals point away from the camera"

    def label_scorer(self, truth: Kind) -> LabelScorer:
        return (
            NormalsLabelScorer() if isinstance(truth, UnitVector) else super().label_scorer(truth)
        )

    @property
    def channels(self) -> int:
        return 3

    def from_output(self, output: np.ndarray) -> np.ndarray:
        """The direction of the first three outputs, (H, W, 3) float32."""
        vectors = super().from_output(output)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-6)

    @property
    def probe_channels(self) -> int:
        """A direction, and its concentration kappa."""
        return 4

    @property
    def probe_dtype(self) -> str:
        return "float16"

    def probe_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """NLL-AngMF of raw (M, 4, g, g) and unit normals (M, g, g, 3), zero where invalid."""
        from cliptex.losses import nll_angmf

        target = targets.float().permute(0, 3, 1, 2)  # (M, 3, g, g)
        return nll_angmf(outputs, target, (target != 0).any(1))

    def probe_scorer(self, protocol: Protocol, things: Sequence[str] | None = None) -> Scorer:
        return NormalsScorer(protocol)


def angular_agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - angle / 90 degrees, at least 0, of unit vectors (N, 3); (N,) float32 in [0, 1]."""
    chord = np.linalg.norm(a.astype(np.float64) - b, axis=-1)  # exact where angles are small
    angle = 2 * np.arcsin(np.clip(chord / 2, 0, 1))
    return (1 - angle / (np.pi / 2)).clip(0, 1).astype(np.float32)


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


def _encode_rgb(array: np.ndarray) -> Encoded:
    valid = UnitVector().valid(array)
    codes = 128 + np.rint(np.where(valid[:, :, None], array, 0) * 127).clip(-127, 127)
    return Encoded(png_bytes(np.where(valid[:, :, None], codes, 0).astype(np.uint8)), None)


def _decode_rgb(png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    vectors = _RGB_TABLE[png_pixels(png, "RGB")]  # (H, W, 3)
    squared = np.einsum("hwc,hwc->hw", vectors, vectors)
    # The invalid code decodes to a squared length of 3; all others lie within 0.02 of 1.
    inverse = np.zeros_like(squared)
    np.divide(1, np.sqrt(squared), out=inverse, where=(squared > 0.5) & (squared < 2))
    vectors *= inverse[:, :, None]
    vectors += np.float32(0)  # -0.0 of the invalid becomes 0.0
    return vectors


def _encode_octahedral(array: np.ndarray) -> Encoded:
    """Project to the octahedron |x|+|y|+|z| = 1 and fold its far half outwards."""
    valid = UnitVector().valid(array)
    if not valid.all():
        array = np.where(valid[:, :, None], array, np.float32(1))
    x, y, z = np.ascontiguousarray(np.moveaxis(array, 2, 0))  # whole planes are read faster
    steps = np.float32(OCTAHEDRAL_STEPS)
    scale = steps / (np.abs(x) + np.abs(y) + np.abs(z))
    u, v = x * scale, y * scale
    far = z < 0
    if far.any():
        outwards = np.copysign(steps - np.abs(v), u), np.copysign(steps - np.abs(u), v)
        u, v = (np.where(far, out, near) for out, near in zip(outwards, (u, v), strict=True))
    codes = np.concatenate([u, v])
    np.rint(codes, out=codes)
    codes += OCTAHEDRAL_STEPS + 1
    if not valid.all():
        codes[~np.concatenate([valid, valid])] = 0
    return Encoded(png_bytes(codes.astype(np.uint8)), None)


def _decode_octahedral(png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    first, second = two_planes(png_pixels(png, "L"))
    codes = (first.astype(np.intp) << 8) | second  # (H, W)
    return np.take(_octahedral_table(), codes, axis=0)  # (H, W, 3)


@cache
def _octahedral_table() -> np.ndarray:
    """The vector of every pair of codes; (65536, 3) float32, zero where the pair is not one."""
    steps = OCTAHEDRAL_STEPS
    u, v = np.divmod(np.arange(65536), 256)
    used = (np.minimum(u, v) >= 1) & (np.maximum(u, v) <= 2 * steps + 1)
    u, v = u - steps - 1, v - steps - 1
    z = steps - np.abs(u) - np.abs(v)
    fold = np.maximum(-z, 0)
    vectors = np.stack([u - np.sign(u) * fold, v - np.sign(v) * fold, z], axis=1)  # integers
    vectors[~used] = 0
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    table = (vectors / length).astype(np.float32)
    table.setflags(write=False)
    return table


def _codec(
    degrees: float, zero: str, encode: Callable[[np.ndarray], Encoded], decode: Callable
) -> Codec:
    bound = f"{degrees:.2f} degrees; invalid pixels exact"
    return Codec(bound, f"code {zero}, the zero vector", encode, decode)


_CODECS = {
    "png-normal-oct": _codec(
        OCTAHEDRAL_ERROR_DEGREES, "(0, 0)", _encode_octahedral, _decode_octahedral
    ),
    "png-normal-rgb8": _codec(RGB_ERROR_DEGREES, "(0, 0, 0)", _encode_rgb, _decode_rgb),
}
