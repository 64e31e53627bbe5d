"""The playroom's experts: real loading code, label forms, independence of the batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cliptex.experts.playroom import TASKS, WEIGHTS, build_network, load_playroom_expert
from cliptex.experts.protocol import Expert
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.metrics import absrel
from cliptex.playroom.render import render
from cliptex.playroom.scene import CLASSES, EXPERT_THINGS, sample_scene

CLASS_NAMES = ["background", "chair", "table"]


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A folder of experts with random weights, in the layout of the shipped ones."""
    torch.manual_seed(0)
    for task in TASKS:
        folder = tmp_path / task
        folder.mkdir()
        state = build_network(task, len(CLASS_NAMES)).state_dict()
        save_file(
            {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
            folder / "model.safetensors",
        )
        classes = CLASS_NAMES if task == "segmentation" else []
        (folder / "card.json").write_text(json.dumps({"revision": "1", "classes": classes}))
    return tmp_path


def predict(expert: Expert, images: list[np.ndarray]) -> list[np.ndarray]:
    return [found.label for found in expert.predict(images)]


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("task", TASKS)
def test_predict__labels_fit_the_kind_and_the_aspect(untrained: Path, task: str) -> None:
    expert = load_playroom_expert(task, untrained)
    labels = predict(expert, pictures((128, 128), (64, 128), (300, 150)))
    assert [label.shape[:2] for label in labels] == [(128, 128), (64, 128), (128, 64)]
    for label in labels:
        expert.spec.kind.check(label)


def test_spec__kinds_units_and_classes(untrained: Path) -> None:
    kinds = [load_playroom_expert(task, untrained).spec.kind for task in TASKS]
    assert kinds == [ClassMap(classes=tuple(CLASS_NAMES)), ScalarField(unit="1/m"), UnitVector()]


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_predict__does_not_depend_on_the_batch(untrained: Path, task: str) -> None:
    expert = load_playroom_expert(task, untrained)
    images = pictures((128, 128), (128, 128), (128, 128))
    together = predict(expert, images)
    for image, label in zip(images, together, strict=True):
        np.testing.assert_allclose(predict(expert, [image])[0], label, atol=1e-4)


def test_load__errors_name_the_remedy(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="segmentation, depth, normals"):
        load_playroom_expert("edges", untrained)
    with pytest.raises(FileNotFoundError, match="cliptex playroom zoo"):
        load_playroom_expert("depth", tmp_path / "absent")


def test_shipped__weights_are_small_and_match_their_cards() -> None:
    from cliptex.files import sha256_file

    files = sorted(WEIGHTS.rglob("*.safetensors"))
    assert len(files) == 4
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    for path in files:
        card = json.loads((path.parent / "card.json").read_text())
        assert card["sha256"] == sha256_file(path)
        assert card["held_out"]


def test_shipped__experts_know_studio_rooms() -> None:
    rooms = [render(sample_scene("studio", "val", 5000 + i), 128, 128) for i in range(6)]
    images = [room.image for room in rooms]
    depth = predict(load_playroom_expert("depth"), images)
    assert np.mean([absrel(p, r.depth) for p, r in zip(depth, rooms, strict=True)]) < 0.2
    normals = predict(load_playroom_expert("normals"), images)
    dots = np.concatenate(
        [(p * r.normals).sum(-1).ravel() for p, r in zip(normals, rooms, strict=True)]
    )
    assert (dots > np.cos(np.deg2rad(30))).mean() > 0.6
    maps = predict(load_playroom_expert("segmentation"), images)
    names = np.array(CLASSES)
    things = np.concatenate([m[m > 0] for m in maps])
    truth = np.concatenate([r.semantic[m > 0] for m, r in zip(maps, rooms, strict=True)])
    assert len(things) > 0
    assert (np.array(["", *EXPERT_THINGS])[things] == names[truth]).mean() > 0.5


def test_a_damaged_card_is_named(untrained: Path) -> None:
    (untrained / "depth" / "card.json").write_text('{"revision": ')
    with pytest.raises(ValueError, match=r"card\.json: not a card of an expert: no whole JSON"):
        load_playroom_expert("depth", untrained)
