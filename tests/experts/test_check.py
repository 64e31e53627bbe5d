"""Each promise is checked: an expert that breaks one gets exactly that line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from cliptex.experts.check import best_axes, check_expert
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (12, 16, 3)).astype(np.uint8) for _ in range(3)]
METRIC = ScalarField("1/m")


def brightness(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=2, dtype=np.float32)


@dataclass
class Made:
    """An expert whose predictions are `answer(images)`."""

    answer: Callable[[Sequence[np.ndarray]], list[Prediction]]
    kind: Kind = METRIC
    spec: ExpertSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = ExpertSpec(
            name="made", kind=self.kind, source="", revision="", weights_sha256="", licence=""
        )

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        return self.answer(images)


def each(label: Callable[[np.ndarray], np.ndarray], kind: Kind = METRIC) -> Made:
    return Made(lambda images: [Prediction(label(image)) for image in images], kind)


def failures(expert: Made, **options) -> list[str]:
    return [line.name for line in check_expert(expert, IMAGES, **options) if not line.ok]


def test_a_good_expert() -> None:
    lines = check_expert(each(brightness), IMAGES)
    assert all(line.ok for line in lines)
    assert [line.name for line in lines] == [
        "answers",
        "form",
        "range",
        "finiteness",
        "determinism",
        "batch-independence",
        "throughput",
    ]
    assert str(lines[0]).startswith("ok    answers: 3 labels")
    with pytest.raises(ValueError, match="two images"):
        check_expert(each(brightness), IMAGES[:1])


def test_broken_promises() -> None:
    def raising(images):
        raise RuntimeError("lost device")

    count = iter(range(10**6))
    infinite = np.ones((2, 2), np.float32)
    infinite[0] = np.inf, 2
    assert failures(Made(raising)) == ["answers"]
    assert failures(Made(lambda images: [Prediction(brightness(images[0]))])) == ["answers"]
    assert failures(each(lambda image: image)) == ["form"]
    assert failures(each(lambda image: brightness(image) - 500)) == ["range"]
    assert failures(each(lambda image: np.ones((2, 2), np.float32))) == ["range"]
    assert failures(each(lambda image: infinite)) == ["finiteness"]
    assert "determinism" in failures(each(lambda image: brightness(image) + next(count)))
    whole = Made(lambda i: [Prediction(brightness(x) + 9 * len(i)) for x in i])
    assert failures(whole) == ["batch-independence"]
    sure = Made(lambda i: [Prediction(brightness(x), confidence=brightness(x)) for x in i])
    assert failures(sure) == ["confidence"]


def test_class_maps() -> None:
    kind = ClassMap(("background", "cat"))
    assert failures(each(lambda image: (brightness(image) > 99).astype(np.uint8), kind)) == []
    assert failures(each(lambda image: np.full((2, 2), 2, np.uint8), kind)) == ["form"]
    batch = Made(lambda i: [Prediction(np.full((2, 2), len(i) > 1, np.uint8)) for _ in i], kind)
    assert failures(batch) == ["batch-independence"]


def room() -> tuple[np.ndarray, np.ndarray]:
    """A floor, a ceiling, and three walls, all pointing away from the camera."""
    normals = np.zeros((12, 16, 3), np.float32)
    normals[..., 2] = 1
    normals[:, :3] = (-0.8, 0, 0.6)
    normals[:, -3:] = (0.8, 0, 0.6)
    normals[:3] = (0, -0.8, 0.6)
    normals[-3:] = (0, 0.8, 0.6)
    return IMAGES[0], normals


@pytest.mark.parametrize(
    ("signs", "name"),
    [((1, 1, 1), ""), ((-1, 1, 1), "-right, down, forward"), ((1, -1, 1), "right, -down, forward")],
)
def test_axes(signs: tuple[int, int, int], name: str) -> None:
    truth = room()[1]
    expert = each(lambda image: (truth * np.array(signs))[::2, ::2], UnitVector())
    lines = {line.name: line for line in check_expert(expert, IMAGES, rooms=[room()])}
    assert lines["axes"].ok == (not name) and name in lines["axes"].detail
    assert lines["range"].ok and lines["determinism"].ok


def test_axes__swapped_and_backward() -> None:
    truth = room()[1]
    expert = each(lambda image: truth[..., [1, 0, 2]], UnitVector())
    assert failures(expert, rooms=[room()]) == ["axes"]
    assert failures(each(lambda image: -truth, UnitVector()), rooms=[room()]) == ["range", "axes"]
    flat = truth.reshape(-1, 3)
    assert best_axes(flat[:, [1, 0, 2]], flat)[0] == "down, right, forward"
    _, best, own = best_axes(-flat, flat)
    assert best == pytest.approx(1, abs=1e-5) and own == pytest.approx(-1, abs=1e-5)
