"""Scalar fields: one float per pixel, such as disparity, resampled over valid pixels only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cliptex.labels.codecs import Codec, Encoded, png_bytes, png_pixels, two_planes
from cliptex.labels.kind import Difference, Kind, Normalisation, Summary, invalid_in_one
from cliptex.labels.sampling import Box, sample_bilinear
from cliptex.metrics import depth_mask
from cliptex.metrics.scorers import (
    LASINGER,
    DepthLabelScorer,
    DepthScorer,
    LabelScorer,
    Protocol,
    Scorer,
)

if TYPE_CHECKING:
    from torch import Tensor

METRIC = ("m", "1/m")  # units with a scale and a zero of their own
SMALLEST_SCALE = 1e-6  # a constant depth map has spread 0; it then trains towards 0
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
FINE_STEPS = 65534  # between the codes 1 and 65535
COARSE_STEPS = 1022  # between the codes 1 and 1023

# Nine equidistant colours of matplotlib's "viridis" (public domain, CC0), dark blue to yellow.
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    dtype=np.float64,
)


@dataclass(frozen=True)
class ScalarField(Kind):
    """One float per pixel in `unit`: "1/m", "m", or "relative disparity"; invalid = NaN."""

    name: ClassVar[str] = "scalar-field"
    task: ClassVar[str] = "depth"
    picture_note: ClassVar[str] = (
        "Disparity, each picture over its own range: the nearer, the lighter."
    )
    probe_loss_name: ClassVar[str] = "scale-shift-invariant L1 in disparity"

    unit: str

    @property
    def metric(self) -> bool:
        """Whether the unit has a scale and a zero of its own."""
        return self.unit in METRIC

    @property
    def invalid(self) -> float:
        return float("nan")

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

    @property
    def codecs(self) -> Mapping[str, Codec]:
        return _CODECS

    def disparity(
        self, array: np.ndarray, bounds: tuple[float, float] = (0.0, np.inf)
    ) -> np.ndarray:
        """The field as disparity, (H, W): depth in metres is inverted, NaN outside `bounds` (m)."""
        if self.unit != "m":
            return array
        out = np.full(array.shape, np.nan, np.float32)
        return np.divide(1.0, array, out=out, where=depth_mask(array, bounds))

    def draw(self, array: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, dark blue (2nd percentile) to yellow (98th); invalid pixels black."""
        valid = np.isfinite(array)
        if not valid.any():
            return np.zeros((*array.shape, 3), dtype=np.uint8)
        low, high = np.percentile(array[valid], (2, 98))
        share = (np.where(valid, array, low) - low) / max(high - low, 1e-12)
        stops = np.linspace(0, 1, len(_VIRIDIS))
        channels = [np.interp(np.clip(share, 0, 1), stops, _VIRIDIS[:, c]) for c in range(3)]
        colours = np.rint(np.stack(channels, axis=2)).astype(np.uint8)  # (H, W, 3)
        colours[~valid] = 0
        return colours

    def draw_truth(self, array: np.ndarray) -> np.ndarray:
        """Depth in metres is drawn as disparity, which is what probes predict."""
        return self.draw(self.disparity(array))

    def legend(self, array: np.ndarray) -> list[tuple[str, str]]:
        values = array[self.valid(array)]
        text = f"yellow is high: {values.min():.3g} to {values.max():.3g} {self.unit}"
        return [("#fde725", text)]

    def error_text(self, found: Difference) -> tuple[str, str]:
        return f"{100 * found.mean:.4f} % of range", f"{100 * found.worst:.4f} %"

    def describe(self, found: Difference) -> str:
        text = f"{100 * found.worst:.3g} % of the range at most, {100 * found.mean:.3g} % on mean"
        return text + invalid_in_one(found)

    def _support(self, values: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """exp(-|a - b| / s), s the label's own mean absolute deviation from its median.

        The training loss divides by the same s, so this is exp(-loss between the two answers):
        free of the unit, and 1/e where they differ by a typical deviation of the image. A ratio
        such as |a - b| / (|a| + |b|) would depend on where a relative disparity happens to have
        its zero. Values without a scale or zero of their own ("relative disparity") are first
        aligned by least squares, with a scale that is not negative; metric ones are not: there a
        common factor is an error like any other.
        """
        a, b = a.astype(np.float64), b.astype(np.float64)
        if not self.metric:
            b = _aligned(a, b)
        spread = max(scalar_statistics(values)[1], np.finfo(np.float32).tiny)
        return np.exp(-np.abs(a - b) / spread)

    def plausible(self, values: np.ndarray) -> tuple[bool, str]:
        low, high = float(values.min()), float(values.max())
        why = "; negative" if self.metric and low < 0 else "; constant" if low == high else ""
        return not why, f"{low:.4g} to {high:.4g} {self.unit}{why}"

    def summary(self) -> Summary:
        return _ScalarSummary(self)

    def label_scorer(self, truth: Kind) -> LabelScorer:
        """Depth against metres."""
        if truth != ScalarField("m"):
            return super().label_scorer(truth)
        return DepthLabelScorer(metric=self.unit == "1/m")

    @property
    def channels(self) -> int:
        return 1

    def normalisation(
        self, array: np.ndarray, stored: tuple[float | None, float | None], rule: Normalisation
    ) -> tuple[float | None, float | None]:
        if rule == "median-mad":
            return stored
        if rule == "none":
            return None, None
        low, high = float(np.nanmin(array)), float(np.nanmax(array))
        return low, high - low

    def normalise(self, array: np.ndarray, shift: float | None, scale: float | None) -> np.ndarray:
        """(value - shift) / scale by the whole image's statistics; as it is where one is None."""
        if shift is None or scale is None:
            return array
        return ((array - shift) / max(scale, SMALLEST_SCALE)).astype(np.float32)

    @property
    def probe_kind(self) -> Kind:
        """Disparity."""
        if self.unit != "m":
            raise ValueError(f"a depth probe needs ground truth in metres, not {self.unit!r}")
        return ScalarField(unit="1/m")

    def probe_target(self, truth: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
        """1 / depth in 1/m, (H, W) float32; NaN outside `bounds`."""
        return self.disparity(truth, bounds)

    @property
    def probe_bounded(self) -> bool:
        return True

    def probe_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scale-shift-invariant L1 of (M, 1, g, g) and disparities (M, g, g)."""
        import torch

        from cliptex.losses import scale_shift_invariant

        valid = torch.isfinite(targets)
        return scale_shift_invariant(outputs[:, 0], torch.where(valid, targets, 0.0), valid)

    def probe_scorer(self, protocol: Protocol, things: Sequence[str] | None = None) -> Scorer:
        return DepthScorer(protocol)

    @property
    def probe_protocol(self) -> Protocol:
        return LASINGER


class _ScalarSummary(Summary):
    def result(self) -> dict[str, Any]:
        """Percentiles of the kept values."""
        values = self.values()
        if not len(values):
            return {}
        found = np.percentile(values, PERCENTILES)
        return {"percentiles": dict(zip(PERCENTILES, map(float, found), strict=True))}


def scalar_statistics(array: np.ndarray) -> tuple[float, float]:
    """(shift, scale) of a scalar field: median, and mean absolute deviation from the median.

    Over valid pixels, in float64; both robust enough for raw network disparities. The scale of a
    constant map is 0: whoever divides by it guards. NaN for both where nothing is valid. As in
    MiDaS (Ranftl et al. 2020, eq. 5), computed once on the whole image before any crop.
    """
    values = array[np.isfinite(array)].astype(np.float64)
    return _statistics(values) if values.size else (float("nan"), float("nan"))


def _statistics(values: np.ndarray) -> tuple[float, float]:
    shift = float(np.median(values))
    return shift, float(np.abs(values - shift).mean())


def _aligned(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """s b + t, with the s >= 0 and t of least squares to `a`; both (N,)."""
    centred = b - b.mean()
    variance = float(centred @ centred)
    scale = max(float(centred @ a) / variance, 0.0) if variance > 0 else 0.0
    return scale * centred + a.mean()


def _encode_scalar(array: np.ndarray, steps: int) -> Encoded:
    valid = np.isfinite(array)
    if not valid.any():
        raise ValueError("a scalar field without a valid pixel cannot be encoded")
    whole = valid.all()
    values = (array if whole else array[valid]).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    shift, scale = _statistics(values)
    values -= low
    values /= (high - low) / steps or 1.0
    values += 1.5  # a code from 1 on, and a half: the conversion cuts
    codes = np.zeros(array.shape, np.uint16)
    codes[... if whole else valid] = values
    planes = codes if steps == FINE_STEPS else np.concatenate([codes >> 8, codes & 255])
    pixels = planes.astype(np.uint16 if steps == FINE_STEPS else np.uint8, copy=False)
    return Encoded(png_bytes(pixels), {"low": low, "high": high, "shift": shift, "scale": scale})


def _decode_fine(png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    codes = png_pixels(png, "I;16")
    low, high = _ends(meta)
    values = codes.astype(np.float64)
    values -= 1
    values *= (high - low) / FINE_STEPS
    values += low
    values[codes == 0] = np.nan
    return values.astype(np.float32)


def _decode_coarse(png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    upper, lower = two_planes(png_pixels(png, "L"))
    low, high = _ends(meta)
    codes = (upper.astype(np.intp) << 8) | lower
    if int(codes.max()) > COARSE_STEPS + 1:
        raise ValueError(f"a scalar code is above {COARSE_STEPS + 1}")
    values = low + np.arange(-1, COARSE_STEPS + 1) * ((high - low) / COARSE_STEPS)
    values[0], values[-1] = np.nan, high
    return values.astype(np.float32)[codes]


def _ends(meta: Mapping[str, Any] | None) -> tuple[float, float]:
    if meta is None or not {"low", "high"} <= meta.keys():
        raise ValueError("a scalar field's JSON must hold low and high")
    return float(meta["low"]), float(meta["high"])


def _codec(steps: int, decode: Callable[..., np.ndarray]) -> Codec:
    bound = f"(high - low) / {2 * steps} of each image's own range; invalid pixels exact"
    return Codec(bound, "code 0, NaN", partial(_encode_scalar, steps=steps), decode)


_CODECS = {
    "png-scalar-10": _codec(COARSE_STEPS, _decode_coarse),
    "png-scalar-16": _codec(FINE_STEPS, _decode_fine),
}
