from __future__ import annotations

from pathlib import Path

import pytest

from cliptex.recipes import (
    clip_ft_vit_b16,
    cliptex_vit_b16,
    photos,
    playroom,
    playroom_pretrain,
)
from cliptex.training.config import TrainConfig

DATA, LABELS = Path("web"), Path("labels")
TASKS = {"segmentation": "mask-rcnn", "depth": "dpt", "normals": "nll-angmf"}


@pytest.mark.parametrize(
    ("key", "value"),
    [  # the paper's Table 7, line by line
        ("epochs", 30),
        ("warmup_steps", 1000),
        ("warmup_init_lr", 1e-6),
        ("lr", 3e-5),
        ("min_lr", 1e-6),
        ("batch_size", 32),
        ("loss_weights", {"depth": 1.0, "clip": 1.0, "segmentation": 0.1, "normals": 1.0}),
    ],
)
def test_table_7(key: str, value: object) -> None:
    assert getattr(cliptex_vit_b16(DATA, LABELS, tasks=TASKS), key) == value


def test_resolution_varies_around_512_in_steps_of_32() -> None:
    sizes = cliptex_vit_b16(DATA, LABELS, tasks=TASKS).resolution
    assert sizes[0] == (512, 512)
    assert len(set(sizes)) == len(sizes) > 1
    # 160 to 320 around 224, times 512 / 224: 366 to 731.
    assert all(h == w and h % 32 == 0 and 352 <= h <= 736 for h, w in sizes)


def test_clip_ft_differs_in_tasks_and_labels_alone() -> None:
    ft = clip_ft_vit_b16(DATA).model_dump()
    cliptex = cliptex_vit_b16(DATA, LABELS, tasks=TASKS).model_dump()
    assert {key for key in ft if ft[key] != cliptex[key]} == {"labels", "tasks"}
    ft, cliptex = playroom(DATA).model_dump(), playroom(DATA, LABELS).model_dump()
    differing = {key for key in ft if ft[key] != cliptex[key]}
    assert differing == {"labels", "tasks", "loss_weights"}  # weights of tasks alone:
    assert ft["loss_weights"]["clip"] == cliptex["loss_weights"]["clip"] == 1.0


def test_playroom_learns_from_its_own_experts() -> None:
    assert playroom(DATA, LABELS).tasks == {
        "segmentation": "playroom-segmentation",
        "depth": "playroom-depth",
        "normals": "playroom-normals",
    }
    assert playroom(DATA, LABELS, tasks={"depth": "perfect-depth"}).tasks == {
        "depth": "perfect-depth"
    }


@pytest.mark.parametrize(
    "config",
    [
        playroom_pretrain(DATA, vocabulary=[5, 7], seed=3),
        photos(DATA, Path("tower.safetensors"), seed=3),
    ],
)
def test_a_new_model_comes_from_the_seed_of_the_run(config: TrainConfig) -> None:
    assert (config.seed, config.model.seed) == (3, 3)


def test_changes_are_validated_and_replace_the_length() -> None:
    assert clip_ft_vit_b16(DATA, steps=10).epochs is None
    assert playroom(DATA, epochs=2).steps is None
    assert playroom(DATA, steps=7).steps == 7
    with pytest.raises(ValueError, match="learning_rate"):
        playroom(DATA, learning_rate=1.0)
