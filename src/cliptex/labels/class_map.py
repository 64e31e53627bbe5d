"""Class maps: an integer id per pixel, resampled by nearest pixel, stored exactly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cliptex.labels.codecs import Codec, Encoded, png_bytes, png_pixels
from cliptex.labels.kind import Difference, Kind, Summary, Tolerance
from cliptex.labels.sampling import Box, sample_nearest
from cliptex.metrics.scorers import (
    BACKGROUND,
    LabelScorer,
    Protocol,
    Scorer,
    SegmentationLabelScorer,
    SegmentationScorer,
)

if TYPE_CHECKING:
    from torch import Tensor

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
IGNORED_COLOUR = (224, 224, 192)  # as in PASCAL VOC's own palette


@dataclass(frozen=True)
class ClassMap(Kind):
    """Integer class ids; `classes` names ids 0, 1, ...; `ignore` marks pixels without a class.

    Background, where a model has one, is class 0. More than 255 classes need uint16 and an
    `ignore` of 65535. Raises ValueError for no classes, too many, or another `ignore`.
    """

    name: ClassVar[str] = "class-map"
    task: ClassVar[str] = "segmentation"
    probe_loss_name: ClassVar[str] = "cross-entropy"

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

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.name, "classes": list(self.classes), "ignore": self.ignore}

    @property
    def dtype(self) -> np.dtype:
        """uint8, or uint16 where `ignore` is 65535."""
        return np.dtype(np.uint8 if self.ignore == 255 else np.uint16)

    @property
    def invalid(self) -> float:
        return self.ignore

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

    def check_instances(self, instances: Mapping[int, int]) -> None:
        """ValueError for ids that are no class and for negative counts."""
        for number, count in instances.items():
            if not 0 <= number < len(self.classes) or count < 0:
                raise ValueError(
                    f"{count} instances of class {number}: ids are 0 to {len(self.classes) - 1}, "
                    "counts are not negative"
                )

    def valid(self, array: np.ndarray) -> np.ndarray:
        """Pixels with a class; (H, W) bool."""
        return array != self.ignore

    def sample(
        self, array: np.ndarray, box: Box, size: tuple[int, int], flip: bool = False
    ) -> np.ndarray:
        """Crop `box`, resize to `size` (h, w) by nearest pixel, then flip left-right if asked."""
        return sample_nearest(array, box, size, flip=flip)

    @property
    def codecs(self) -> Mapping[str, Codec]:
        """The one whose bits the ids need."""
        bits = self.dtype.itemsize * 8
        codec = Codec("exact", f"id {self.ignore}", _encode, partial(_decode, bits=bits))
        return {f"png-class-{bits}": codec}

    def draw(self, array: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 in the PASCAL VOC palette; ignored pixels pale."""
        return class_colours(self.ignore)[array]

    def draw_over(self, image: np.ndarray, array: np.ndarray) -> np.ndarray:
        """The picture shines through its classes."""
        return (0.45 * image + 0.55 * super().draw_over(image, array)).astype(np.uint8)

    def legend(self, array: np.ndarray) -> list[tuple[str, str]]:
        """Each class that is present."""
        ids = [int(i) for i in np.unique(array) if i != self.ignore]
        colours = class_colours(self.ignore)[ids]
        names = ("#" + "".join(f"{int(c):02x}" for c in colour) for colour in colours)
        return [(css, self.classes[i]) for css, i in zip(names, ids, strict=True)]

    def difference(self, a: np.ndarray, b: np.ndarray) -> Difference:
        """The share of pixels of another class, invalid ones counted as a class of their own."""
        share = float((a != b).mean())
        return Difference(float((self.valid(a) == self.valid(b)).mean()), share, share)

    def within(self, found: Difference, tolerance: Tolerance) -> bool:
        return found.worst <= 1 - tolerance.equal + 1e-9

    def describe(self, found: Difference) -> str:
        return f"{100 * found.worst:.3g} % of pixels have another class"

    def error_text(self, found: Difference) -> tuple[str, str]:
        return f"{100 * found.mean:.3g} % of pixels", f"{100 * found.worst:.3g} %"

    def _support(self, values: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """1 where both say the same class, else 0."""
        return (a == b).astype(np.float32)

    def plausible(self, values: np.ndarray) -> tuple[bool, str]:
        ids = np.unique(values)
        names = ", ".join(self.classes[i] for i in ids[:8])
        return True, f"{len(ids)} of {len(self.classes)} classes: {names}"

    def summary(self) -> Summary:
        return _ClassSummary(self)

    def label_scorer(self, truth: Kind) -> LabelScorer:
        """Classes are matched by name; ValueError where no name is shared."""
        if not isinstance(truth, ClassMap):
            return super().label_scorer(truth)
        background = 0 if _plain(truth.classes[0]) == BACKGROUND else None
        ids = match_classes(self.classes, truth.classes)
        if not set(ids) - {None, background}:
            raise ValueError(
                f"the expert's classes {list(self.classes)[:5]}... and the benchmark's "
                f"{list(truth.classes)[:5]}... share no name"
            )
        return SegmentationLabelScorer(self, truth, ids, background)

    @property
    def channels(self) -> int:
        """One logit a class, background included."""
        return len(self.classes)

    def blank(self, count: int, size: tuple[int, int]) -> np.ndarray:
        """(count, H, W) uint8, or int32 for 16-bit ids, all of them ignored."""
        return np.full((count, *size), self.ignore, self.probe_dtype)

    def fill(self, target: np.ndarray, array: np.ndarray, valid: np.ndarray) -> None:
        target[:] = array

    def from_target(self, target: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return target.astype(self.dtype)

    def from_output(self, output: np.ndarray) -> np.ndarray:
        """The most likely class of every pixel."""
        return output.argmax(0).astype(self.dtype)

    def to_output(self, array: np.ndarray) -> np.ndarray:
        """One-hot (C, H, W) float32."""
        return (array == np.arange(len(self.classes))[:, None, None]).astype(np.float32)

    def probe_target(self, truth: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
        return self.check(truth)

    @property
    def probe_dtype(self) -> str:
        return "uint8" if self.ignore == 255 else "int32"

    def probe_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over valid pixels; 0 where there is none."""
        from torch.nn import functional as F

        labels = targets.long()
        total = F.cross_entropy(outputs, labels, ignore_index=self.ignore, reduction="sum")
        return total / (labels != self.ignore).sum().clamp(min=1)

    def probe_scorer(self, protocol: Protocol, things: Sequence[str] | None = None) -> Scorer:
        return SegmentationScorer(self, protocol, things)

    def largest_share(self, array: np.ndarray) -> float:
        """Share of the commonest class among valid pixels; 1 where none is valid."""
        counts = np.bincount(array[self.valid(array)].ravel())
        return float(counts.max() / counts.sum()) if counts.size else 1.0


class _ClassSummary(Summary):
    """Adds up pixels, labels and objects by class."""

    def __init__(self, kind: ClassMap) -> None:
        super().__init__(kind)
        self._classes = kind.classes
        self._pixels = np.zeros(len(kind.classes), np.int64)
        self._present = np.zeros(len(kind.classes), np.int64)
        self._objects: Counter[int] = Counter()
        self._labels = 0
        self._counted = False

    def add(self, array: np.ndarray, instances: Mapping[int, int] | None) -> None:
        count = len(self._classes)
        found = np.bincount(array.ravel(), minlength=count)[:count]
        self._pixels += found
        self._present += found > 0
        self._labels += 1
        if instances is not None:
            self._counted = True
            self._objects.update(instances)

    def result(self) -> dict[str, Any]:
        """Shares of pixels and of labels, and numbers of objects, by class."""
        pixels = self._pixels / max(1, self._pixels.sum())
        present = self._present / max(1, self._labels)
        objects = {name: self._objects[i] for i, name in enumerate(self._classes)}
        return {
            "pixel_share": dict(zip(self._classes, map(float, pixels), strict=True)),
            "label_share": dict(zip(self._classes, map(float, present), strict=True)),
            "instances": objects if self._counted else {},
        }


def match_classes(expert: Sequence[str], dataset: Sequence[str]) -> list[int | None]:
    """For each of the expert's classes the benchmark's id of that name, or None.

    Case, spaces, dashes and underscores do not matter; common synonyms are known.
    """
    ids = {_plain(name): i for i, name in enumerate(dataset)}
    return [ids.get(_plain(name)) for name in expert]


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_\-]+", "", name.lower())
    return SYNONYMS.get(plain, plain)


@cache
def class_colours(ignore: int) -> np.ndarray:
    """Colour of each class id by PASCAL VOC's bit rule (id 0 black); (ignore + 1, 3) uint8."""
    ids = np.arange(ignore + 1)
    colours = np.zeros((ignore + 1, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> channel) & 1) << (7 - bit)).astype(np.uint8)
        ids = ids >> 3
    colours[ignore] = IGNORED_COLOUR
    colours.setflags(write=False)
    return colours


def _encode(array: np.ndarray) -> Encoded:
    return Encoded(png_bytes(array), None)


def _decode(png: bytes, meta: Mapping[str, Any] | None, *, bits: int) -> np.ndarray:
    return png_pixels(png, "L" if bits == 8 else "I;16").astype(f"uint{bits}", copy=False)
