"""The zoo's building blocks, and (slow) a shortened rebuild of every shipped file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cliptex.pipeline.zoo_experts import (
    augment_images,
    detection_target,
    expert_class_ids,
    open_studio,
    render_studio,
    train_expert,
)
from cliptex.playroom.scene import CLASSES, EXPERT_THINGS


def test_expert_class_ids__knows_its_things_only() -> None:
    table = expert_class_ids()
    assert [table[CLASSES.index(name)] for name in EXPERT_THINGS] == list(range(1, 9))
    assert table[CLASSES.index("wall")] == table[CLASSES.index("clock")] == table[0] == 0


def test_detection_target__boxes_labels_and_masks_by_hand() -> None:
    semantic = np.zeros((16, 16), dtype=np.uint8)
    instances = np.zeros((16, 16), dtype=np.uint8)
    semantic[2:8, 3:9] = CLASSES.index("table")
    instances[2:8, 3:9] = 1
    semantic[10:15, 10:15] = CLASSES.index("clock")  # the expert does not know clocks
    instances[10:15, 10:15] = 2
    semantic[0, 0] = CLASSES.index("chair")  # too small
    instances[0, 0] = 3
    target = detection_target(semantic, instances)
    assert target["boxes"].tolist() == [[3, 2, 9, 8]]
    assert target["labels"].tolist() == [EXPERT_THINGS.index("table") + 1]
    assert target["masks"].sum() == 36


def test_detection_target__room_without_known_things() -> None:
    empty = np.zeros((16, 16), dtype=np.uint8)
    target = detection_target(empty, empty)
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 16, 16)


def test_augment_images__stays_in_range_and_follows_the_generator() -> None:
    images = torch.rand(3, 3, 8, 8)
    first = augment_images(images, torch.Generator().manual_seed(1))
    again = augment_images(images, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert first.min() >= 0 and first.max() <= 1
    assert not torch.equal(first, images)


@pytest.mark.parametrize("task", ["segmentation", "depth", "normals"])
def test_train_expert__interrupted_run_ends_like_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    from cliptex.pipeline import zoo_experts

    monkeypatch.setattr(zoo_experts, "CHECKPOINT_EVERY", 1)
    render_studio(tmp_path / "studio", split="val", count=4)
    studio = open_studio(tmp_path / "studio")
    whole = train_expert(task, studio, tmp_path / "whole", steps=2, batch=2)

    class Killed(Exception):
        pass

    def loss_then_die(*args: object) -> torch.Tensor:
        if list((tmp_path / "parts").glob("checkpoints/step-*")):
            raise Killed
        return original(*args)  # type: ignore[arg-type]

    original = zoo_experts.LOSSES[task]
    monkeypatch.setitem(zoo_experts.LOSSES, task, loss_then_die)
    with pytest.raises(Killed):
        train_expert(task, studio, tmp_path / "parts", steps=2, batch=2)
    monkeypatch.setitem(zoo_experts.LOSSES, task, original)
    resumed = train_expert(task, studio, tmp_path / "parts", steps=2, batch=2)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_build_zoo__short_preset_writes_every_shipped_file(tmp_path: Path) -> None:
    from cliptex.experts.playroom import load_playroom_expert
    from cliptex.models.clip import load_clip
    from cliptex.pipeline.zoo import build_zoo

    build_zoo(tmp_path, preset="short")
    for task in ("segmentation", "depth", "normals"):
        expert = load_playroom_expert(task, tmp_path / "pack")
        expert.predict([np.zeros((128, 128, 3), dtype=np.uint8)])
    clip = load_clip(tmp_path / "pack" / "clip")
    assert clip.encode_text(clip.tokenize(["a chair"])).shape[0] == 1
