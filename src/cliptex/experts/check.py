"""Does an expert keep the protocol's promises? A line per promise, measured on real images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from cliptex.experts.protocol import Expert, Prediction
from cliptex.labels.kinds import Kind, Tolerance, UnitVector

BATCH = Tolerance(equal=0.999, scalar=0.002, degrees=0.5)
"""How far the labels of an image may lie apart, alone and in a batch."""
AXES = ("right", "down", "forward")

Room = tuple[np.ndarray, np.ndarray]
"""A picture (H, W, 3) uint8 and its true normals (H, W, 3)."""


@dataclass(frozen=True)
class CheckLine:
    """One promise: whether it is kept, and what was measured."""

    name: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: {self.detail}"


def check_expert(
    expert: Expert,
    images: Sequence[np.ndarray],
    *,
    rooms: Sequence[Room] = (),
) -> list[CheckLine]:
    """Form, range, finiteness, determinism, batch-independence, throughput, and axes.

    `images` (H_i, W_i, 3) uint8, at least two. `rooms` are rendered pictures with their true
    normals; with them an expert for normals is asked whether its axes are right, down, forward.
    Raises ValueError for fewer than two images. What the expert itself raises is a failed line.
    """
    if len(images) < 2:
        raise ValueError("checking that batches do not matter needs at least two images")
    try:
        expert.predict(images[:1])  # loads what is loaded at the first call; not timed
        together, batched = _timed(lambda: expert.predict(images))
        again = expert.predict(images)
        alone, single = _timed(lambda: [p for image in images for p in expert.predict([image])])
    except Exception as error:  # an expert is foreign code: whatever it raises is the finding
        return [CheckLine("answers", False, f"{type(error).__name__}: {error}")]
    kind, count = expert.spec.kind, len(images)
    complete = len(together) == len(again) == len(alone) == count
    answers = CheckLine("answers", complete, f"{len(together)} labels of {count} images")
    form = _form(kind, [*together, *again, *alone])
    if not (answers.ok and form.ok):
        return [answers, form]
    labels, repeated, lonely = (
        [kind.check(p.label) for p in group] for group in (together, again, alone)
    )
    rates = f"{count / batched:.2f} images/s in one batch of {count}, {count / single:.2f} alone"
    return [
        answers,
        form,
        _range(kind, labels),
        _finite(kind, together),
        _determinism(labels, repeated),
        _independence(kind, labels, lonely),
        *_confidence(together),
        *([_axes(expert, rooms)] if kind.in_camera_axes and rooms else []),
        CheckLine("throughput", True, rates),
    ]


def best_axes(found: np.ndarray, true: np.ndarray) -> tuple[str, float, float]:
    """The axes that fit best: their name, their mean cosine, and that of the stated axes.

    `found` and `true` (N, 3) unit vectors. All 48 signed permutations of the axes are tried; the
    name says what x, y and z of `found` mean, such as "right, -down, forward".
    """
    cosines: dict[tuple[str, ...], float] = {}
    correlation = found.T.astype(np.float64) @ true.astype(np.float64) / len(found)  # (3, 3)
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            name = tuple(
                ("-" if sign < 0 else "") + AXES[axis]
                for axis, sign in zip(order, signs, strict=True)
            )
            cosines[name] = sum(
                sign * float(correlation[i, axis])
                for i, (axis, sign) in enumerate(zip(order, signs, strict=True))
            )
    best = max(cosines, key=lambda name: cosines[name])
    return ", ".join(best), cosines[best], cosines[AXES]


def _timed(call: Callable[[], list[Prediction]]) -> tuple[list[Prediction], float]:
    start = time.perf_counter()
    found = call()
    return found, max(time.perf_counter() - start, 1e-9)


def _form(kind: Kind, predictions: Sequence[Prediction]) -> CheckLine:
    try:
        shapes = {kind.check(prediction.label).shape for prediction in predictions}
    except ValueError as error:
        return CheckLine("form", False, str(error))
    sizes = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:3])
    more = f" and {len(shapes) - 3} more sizes" if len(shapes) > 3 else ""
    return CheckLine("form", True, f"{kind.name}, {sizes}{more}")


def _range(kind: Kind, labels: Sequence[np.ndarray]) -> CheckLine:
    values = np.concatenate([label[kind.valid(label)] for label in labels])  # (N, ...)
    if not values.size:
        return CheckLine("range", False, "no pixel is valid")
    return CheckLine("range", *kind.plausible(values))


def _finite(kind: Kind, predictions: Sequence[Prediction]) -> CheckLine:
    """All that is not finite; NaN may mean invalid, infinity never does."""
    infinite = sum(int(np.isinf(p.label).sum()) for p in predictions)
    valid = float(np.mean([kind.valid(kind.check(p.label)).mean() for p in predictions]))
    detail = f"{100 * valid:.2f} % of pixels valid, {infinite} values infinite"
    return CheckLine("finiteness", valid > 0 and not infinite, detail)


def _determinism(labels: Sequence[np.ndarray], repeated: Sequence[np.ndarray]) -> CheckLine:
    same = sum(np.array_equal(a, b, equal_nan=True) for a, b in zip(labels, repeated, strict=True))
    return CheckLine(
        "determinism", same == len(labels), f"{same} of {len(labels)} labels repeated bit for bit"
    )


def _independence(
    kind: Kind, labels: Sequence[np.ndarray], alone: Sequence[np.ndarray]
) -> CheckLine:
    name = "batch-independence"
    pairs = list(zip(labels, alone, strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return CheckLine(name, False, "a label's size depends on the batch")
    found = [kind.difference(a, b) for a, b in pairs]
    worst = max(found, key=lambda one: (not kind.within(one, BATCH), one.worst, one.mean))
    return CheckLine(name, kind.within(worst, BATCH), f"in the worst image {kind.describe(worst)}")


def _confidence(predictions: Sequence[Prediction]) -> list[CheckLine]:
    maps = [p.confidence for p in predictions if p.confidence is not None]
    if not maps:
        return []
    if any(m.ndim != 2 or m.size == 0 or not np.isfinite(m).all() for m in maps):
        return [CheckLine("confidence", False, "expected finite (h, w) maps")]
    low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
    return [CheckLine("confidence", low >= 0 and high <= 1, f"{low:.3f} to {high:.3f}")]


def _axes(expert: Expert, rooms: Sequence[Room]) -> CheckLine:
    """On rooms whose normals are known, no other axes may fit better than the stated ones."""
    kind = UnitVector()
    found: list[np.ndarray] = []
    true: list[np.ndarray] = []
    for prediction, (_, normals) in zip(
        expert.predict([image for image, _ in rooms]), rooms, strict=True
    ):
        label = kind.resize(kind.check(prediction.label), (normals.shape[0], normals.shape[1]))
        both = kind.valid(label) & kind.valid(normals)
        found.append(label[both])
        true.append(normals[both])
    name, cosine, own = best_axes(np.concatenate(found), np.concatenate(true))
    detail = f"mean cosine {own:.3f} with the rendered rooms"
    right = name == ", ".join(AXES)
    return CheckLine("axes", right, detail if right else f"{detail}, but {cosine:.3f} as {name}")
