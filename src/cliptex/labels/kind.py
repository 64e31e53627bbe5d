"""What every kind of dense label answers, so that no other room asks of what kind a label is.

A kind is a frozen dataclass of what its labels need to be understood (classes, a unit, a frame),
and its methods are all the rules: how its arrays look, how they are cropped, mirrored, stored,
drawn, compared, summarised, learnt from and scored. The defaults here are those of a field of one
or more floats per pixel, (H, W) or (H, W, C); `cliptex.labels.kinds` lists the kinds there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from cliptex.labels.codecs import Codec, Encoded, fitted_size
from cliptex.labels.sampling import WHOLE as WHOLE_PICTURE
from cliptex.labels.sampling import Box
from cliptex.metrics.scorers import WHOLE, LabelScorer, Protocol, Scorer

if TYPE_CHECKING:  # labels are read and written without torch
    from torch import Tensor

Normalisation = Literal["median-mad", "min-max", "none"]
"""How the values of a label become a training target, always by numbers of the whole image.

median-mad: minus the median, over the mean absolute deviation from it (both stored). min-max: its
range becomes 0 to 1, as in a picture of 8 bits. none: the label's own unit."""

# Share of an image's own range by which a codec may change a label's values: no codec of the store
# is coarser, so a stored value may differ by as much from what the expert said.
CODEC_SHARE = 0.001
PIXELS_PER_LABEL = 1024  # a fixed grid of pixels per label enters a summary


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far two labels of one kind may lie apart and still be called the same.

    equal: least share of pixels with the same class, or for the other kinds with the same
        validity, in [0, 1].
    scalar: largest difference of values, as a share of the image's range of values.
    degrees: largest mean angle between normals.
    """

    equal: float = 0.99
    scalar: float = 0.01
    degrees: float = 1.0

    def of_stored(self) -> Tolerance:
        """The same for a label that went through a codec, whose own error is allowed as well."""
        return replace(self, scalar=self.scalar + CODEC_SHARE)


@dataclass(frozen=True)
class Difference:
    """How two labels of one kind and size differ.

    `validity` is the share of pixels on whose validity both agree. Over pixels valid in both,
    `mean` and `worst` are: the share of pixels of another class (both alike), |a - b| as a share
    of b's range (of its magnitude where it is constant), or the angle in degrees; 0 where no
    pixel is valid in both.
    """

    validity: float
    mean: float
    worst: float


class Summary:
    """Collects the valid values of many labels of one kind, for `label stats`."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._found: list[np.ndarray] = []

    def add(self, array: np.ndarray, instances: Mapping[int, int] | None) -> None:
        """One label, and its number of objects by class id, None where they were not counted.

        About `PIXELS_PER_LABEL` pixels on a grid are kept.
        """
        step = max(1, int(np.sqrt(array.shape[0] * array.shape[1] / PIXELS_PER_LABEL)))
        thin = array[::step, ::step]
        self._found.append(thin[self._kind.valid(thin)])

    def values(self) -> np.ndarray:
        """All kept values, (N, ...) float64."""
        return np.concatenate(self._found).astype(np.float64)

    def result(self) -> dict[str, Any]:
        """Fields of `LabelStats`: here the mean vector over the kept values."""
        values = self.values()
        values = values.reshape(len(values), -1)
        return {"mean_vector": tuple(values.mean(axis=0).tolist())} if len(values) else {}


class Kind(ABC):
    """A kind of dense label. Subclasses are frozen dataclasses, listed in `kinds.KINDS`."""

    name: ClassVar[str]
    """What manifests call the kind, such as "scalar-field"."""
    task: ClassVar[str]
    """What results rows call predictions of the kind, such as "depth"."""
    picture_note: ClassVar[str] = ""
    """What a reader of drawn labels must know; "" where they speak for themselves."""
    in_camera_axes: ClassVar[bool] = False
    """True where values are directions, so that rendered rooms can show whether axes are right."""

    @classmethod
    def expect(cls, kind: Kind, where: object) -> Self:
        """`kind`, known to be of this class; ValueError naming `where` it was found otherwise."""
        if not isinstance(kind, cls):
            raise ValueError(f"{where} holds labels of kind {kind.name}, not {cls.name}")
        return kind

    def to_json(self) -> dict[str, Any]:
        """The kind as manifests hold it; `kinds.kind_from_json` reads it back."""
        return {"kind": self.name, **vars(self)}

    # The form of an array.

    @property
    @abstractmethod
    def invalid(self) -> float:
        """What every value of an invalid pixel holds."""

    @abstractmethod
    def check(self, array: np.ndarray) -> np.ndarray:
        """The array in canonical form, (H, W) or (H, W, C); ValueError where it cannot have it."""

    @abstractmethod
    def valid(self, array: np.ndarray) -> np.ndarray:
        """Pixels that say something; (H, W) bool."""

    # Geometry.

    @abstractmethod
    def sample(
        self, array: np.ndarray, box: Box, size: tuple[int, int], flip: bool = False
    ) -> np.ndarray:
        """Crop `box`, resize to `size` (h, w), then mirror left-right if asked."""

    def resize(self, array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The whole label at `size` (h, w)."""
        return self.sample(array, WHOLE_PICTURE, size)

    def fit(self, array: np.ndarray, max_side: int) -> np.ndarray:
        """The label, made smaller where its longer side exceeds `max_side`."""
        size = (array.shape[0], array.shape[1])
        smaller = fitted_size(size, max_side)
        return array if smaller == size else self.resize(array, smaller)

    def flip(self, array: np.ndarray) -> np.ndarray:
        """Left-right mirror image."""
        return np.ascontiguousarray(array[:, ::-1])

    # Storage.

    @property
    @abstractmethod
    def codecs(self) -> Mapping[str, Codec]:
        """The codecs that store labels of this kind, by name; the default comes first."""

    @property
    def default_codec(self) -> str:
        """The name of the codec of new stores."""
        return next(iter(self.codecs))

    def codec(self, name: str | None = None) -> Codec:
        """The codec of that name, by default the kind's; ValueError for one of another kind."""
        found = self.codecs.get(self.default_codec if name is None else name)
        if found is None:
            raise ValueError(
                f"codec {name!r} does not store {self.name}; known: {', '.join(self.codecs)}"
            )
        return found

    def encode(self, array: np.ndarray, codec: str | None = None) -> Encoded:
        """One label, in canonical form, as bytes; ValueError where it or the codec is wrong."""
        return self.codec(codec).encode(array)

    def decode(
        self, png: bytes, meta: Mapping[str, Any] | None, codec: str | None = None
    ) -> np.ndarray:
        """The label's array in canonical form; ValueError where bytes are not of this codec."""
        return self.codec(codec).decode(png, meta)

    def check_instances(self, instances: Mapping[int, int]) -> None:
        """ValueError where `instances` are not numbers of objects by class id of this kind."""
        raise ValueError("only a class map has instances")

    # Pictures.

    @abstractmethod
    def draw(self, array: np.ndarray) -> np.ndarray:
        """The label in colour, (H, W, 3) uint8."""

    def draw_truth(self, array: np.ndarray) -> np.ndarray:
        """Ground truth in the colours of what a probe predicts of it, (H, W, 3) uint8."""
        return self.draw(array)

    def draw_over(self, image: np.ndarray, array: np.ndarray) -> np.ndarray:
        """The label over its image (H, W, 3) uint8, as a picture of that size."""
        return self.draw(self.resize(array, (image.shape[0], image.shape[1])))

    def legend(self, array: np.ndarray) -> list[tuple[str, str]]:
        """(CSS colour, what it means) for the picture of `array`."""
        return []

    # Two labels.

    def difference(self, a: np.ndarray, b: np.ndarray) -> Difference:
        """How label `a` differs from `b`, both in canonical form and of one size."""
        first, second = self.valid(a), self.valid(b)
        validity, both = float((first == second).mean()), first & second
        if not both.any():
            return Difference(validity, 0.0, 0.0)
        distance = self._distance(a[both], b[both])
        return Difference(validity, float(distance.mean()), float(distance.max()))

    def _distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(N,) distances of valid values (N, ...), as a share of the range of `b`."""
        x, y = a.astype(np.float64), b.astype(np.float64)
        return _lengths(x - y) / (float(np.ptp(y)) or float(np.abs(y).max()) or 1.0)

    def within(self, found: Difference, tolerance: Tolerance) -> bool:
        """Whether two labels that differ by `found` may be called the same."""
        return found.validity >= tolerance.equal and found.worst <= tolerance.scalar

    def describe(self, found: Difference) -> str:
        """A difference in words."""
        mean, worst = self.error_text(found)
        return f"{worst} at most, {mean} on mean{invalid_in_one(found)}"

    def error_text(self, found: Difference) -> tuple[str, str]:
        """The mean and the worst of a difference with their unit."""
        return f"{100 * found.mean:.3g} % of the range", f"{100 * found.worst:.3g} % of the range"

    def agreement(self, label: np.ndarray, other: np.ndarray) -> np.ndarray:
        """How far `other` supports `label`, both in canonical form and of one size (H, W).

        Returns (H, W) float32 in [0, 1]; 0 where only one of the two is valid, NaN where the label
        is not.
        """
        valid, both = self.valid(label), self.valid(label) & self.valid(other)
        agreement = np.where(valid, np.float32(0), np.float32(np.nan))
        if both.any():
            agreement[both] = self._support(label[valid], label[both], other[both])
        return agreement

    def _support(self, values: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(N,) in [0, 1] for values (N, ...) valid in both labels: exp(-|a - b| / s).

        s is the mean distance of all the label's `values` from their median.
        """
        x = values.astype(np.float64)
        spread = max(float(_lengths(x - np.median(x, axis=0)).mean()), _TINY)
        return np.exp(-_lengths(a.astype(np.float64) - b.astype(np.float64)) / spread)

    # Many labels.

    def plausible(self, values: np.ndarray) -> tuple[bool, str]:
        """Whether valid values (N, ...), N > 0, may be an expert's labels, and what was found."""
        low, high = float(values.min()), float(values.max())
        constant = low == high
        return not constant, f"{low:.4g} to {high:.4g}{'; constant' if constant else ''}"

    def summary(self) -> Summary:
        """What `label stats` adds labels of this kind up with."""
        return Summary(self)

    # Training: targets of a network, and its answers.

    @property
    @abstractmethod
    def channels(self) -> int:
        """How many values a network predicts for each pixel."""

    def blank(self, count: int, size: tuple[int, int]) -> np.ndarray:
        """Targets of `count` samples without a label: (count, C, H, W) float32."""
        return np.zeros((count, self.channels, *size), np.float32)

    def fill(self, target: np.ndarray, array: np.ndarray, valid: np.ndarray) -> None:
        """Write the `valid` pixels of a label into its row of `blank`."""
        np.copyto(target, _planes(array), where=valid)

    def from_target(self, target: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """The label that `fill` wrote, (H, W) or (H, W, C)."""
        return _last(np.where(valid, target, np.float32(self.invalid)))

    def normalisation(
        self, array: np.ndarray, stored: tuple[float | None, float | None], rule: Normalisation
    ) -> tuple[float | None, float | None]:
        """(shift, scale) for `normalise`, of a whole label and the statistics stored with it."""
        return stored

    def normalise(self, array: np.ndarray, shift: float | None, scale: float | None) -> np.ndarray:
        """The label as a network learns it; (value - shift) / scale where the kind has a scale."""
        return array

    def from_output(self, output: np.ndarray) -> np.ndarray:
        """The label that a network's raw output (K, H, W), K at least `channels`, stands for."""
        return _last(output[: self.channels].astype(np.float32, copy=False))

    def to_output(self, array: np.ndarray) -> np.ndarray:
        """The output (C, H, W) that would be right for a label; 0 where it is invalid."""
        return np.where(self.valid(array), _planes(array), np.float32(0))

    # Scores.

    def label_scorer(self, truth: Kind) -> LabelScorer:
        """What scores labels of this kind against ground truth of kind `truth`.

        Raises ValueError where the two have nothing in common.
        """
        raise ValueError(f"labels {self.to_json()} cannot be scored against {truth.to_json()}")

    # Probes: what a frozen encoder's head learns from ground truth of this kind.

    @property
    def probe_kind(self) -> Kind:
        """The kind of label that a head predicts; ValueError where it can learn none."""
        return self

    def probe_target(self, truth: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
        """Ground truth as a label of `probe_kind`; of depth, only what lies within `bounds` (m)."""
        return np.asarray(truth)

    @property
    def probe_bounded(self) -> bool:
        """Whether `bounds` decide what is learnt."""
        return False

    @property
    def probe_channels(self) -> int:
        """Outputs of a head, for `probe_loss`."""
        return self.channels

    @property
    def probe_dtype(self) -> str:
        """NumPy's name of the type in which training targets (N, H, W, ...) are kept."""
        return "float32"

    probe_loss_name: ClassVar[str] = "L1"

    def probe_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """() loss of raw outputs (M, K, g, g) against labels (M, g, g, ...) of `probe_kind`."""
        import torch

        y = targets if targets.ndim == 4 else targets[..., None]  # (M, g, g, C)
        valid = torch.from_numpy(np.stack([self.valid(one) for one in targets.cpu().numpy()]))
        valid = valid.to(y.device)
        p = outputs[:, : self.channels].permute(0, 2, 3, 1)[valid]
        return (p - y[valid].to(p.dtype)).abs().sum() / max(1, p.numel())

    def probe_scorer(self, protocol: Protocol, things: Sequence[str] | None = None) -> Scorer:
        """What scores a head's outputs against ground truth of this kind.

        things: classes averaged apart, of class maps. Raises ValueError where nothing scores them.
        """
        raise ValueError(f"there is no measure of a probe's {self.task}")

    @property
    def probe_protocol(self) -> Protocol:
        """The rules of scoring where no others are chosen."""
        return WHOLE

    def largest_share(self, array: np.ndarray) -> float:
        """Share of the commonest class among valid pixels; 0 for kinds without classes."""
        return 0.0


_TINY = float(np.finfo(np.float32).tiny)


def invalid_in_one(found: Difference) -> str:
    """What a description says of pixels that only one of two labels calls valid."""
    share = 1 - found.validity
    return f"; {100 * share:.3g} % of pixels valid in one only" if share else ""


def _lengths(values: np.ndarray) -> np.ndarray:
    """(N,) or (N, C) -> (N,) magnitudes."""
    return np.abs(values) if values.ndim == 1 else np.linalg.norm(values, axis=-1)


def _planes(array: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) -> (1, H, W) or (C, H, W)."""
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _last(planes: np.ndarray) -> np.ndarray:
    """(1, H, W) or (C, H, W) -> (H, W) or (H, W, C)."""
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
