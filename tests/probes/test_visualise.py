import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cliptex.labels.kinds import ClassMap, ScalarField
from cliptex.probes import GroupConfig, Naming, Schedule, fast, run_probe
from cliptex.probes.task import task_of
from cliptex.probes.visualise import Drawn, add_to_panel, picture_indices, visualise
from cliptex.report.parts import read_panels


def test_indices__are_spread_and_never_twice():
    assert picture_indices(100, 3) == (0, 49, 99)
    assert picture_indices(2, 6) == (0, 1)


def test_linear__a_solved_world_is_drawn_as_its_truth(
    world, kinds, config, encoder, tmp_path, probe_one
):
    train, test = world(kinds["segmentation"], 24, 0), world(kinds["segmentation"], 5, 1)
    outcome = probe_one(encoder(), train, None, test, config())
    (drawn,) = visualise(encoder(), [outcome], test, 3)
    assert drawn.indices == (0, 2, 4) and drawn.probe == "linear"
    for index, image, truth in zip(drawn.indices, drawn.images, drawn.ground_truths, strict=True):
        assert np.array_equal(image, test[index].image)
        assert np.array_equal(truth, test.kind.draw(test[index].target))
    same = [(t == p).mean() for t, p in zip(drawn.ground_truths, drawn.predictions, strict=True)]
    assert min(same) > 0.85  # outputs blur at the borders of cells
    drawn.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir())[:3] == [
        "00000-image.png",
        "00000-prediction.png",
        "00000-truth.png",
    ]


def test_group__one_drawing_per_head(world, kind, encoder):
    train, test = world(kind, 8, 0), world(kind, 3, 1)
    schedule = Schedule(lr=0.01, warmup_steps=0, warmup_init_lr=0.0, min_lr=0.01)
    config = GroupConfig(
        heads=("linear", "pspnet"),
        schedule=schedule,
        seeds=(0, 1),
        epochs=1,
        batch_size=4,
        resolution=16,
        width=32,
    )
    outcomes = run_probe(encoder(), train, None, test, config, naming=Naming(model="m"))
    drawn = visualise(encoder(), outcomes, test, 2)
    assert [one.probe for one in drawn] == ["linear", "pspnet"]
    assert {p.shape for one in drawn for p in one.predictions} == {test[0].image.shape}
    assert bool(drawn[0].note) == isinstance(kind, ScalarField)
    assert not np.array_equal(drawn[0].predictions[0], drawn[1].predictions[0])


def test_truth__unknown_depth_is_black_without_a_warning(world, kinds):
    depth = np.array([[1.0, 2.0, 0.0, np.nan]], np.float32)
    task = task_of(world(kinds["depth"], 1, 0), fast())
    drawn = task.truth.draw_truth(depth)
    assert drawn[0, 2:].tolist() == [[0, 0, 0]] * 2
    assert drawn[0, 0].sum() > drawn[0, 1].sum(), "near is light"


@pytest.fixture
def drawn():
    """Two test images with one colour for what a probe says."""

    def make(colour: int, indices=(0, 7)) -> Drawn:
        flat = tuple(np.full((400, 200, 3), colour, np.uint8) for _ in indices)
        truth = tuple(ClassMap(classes=("a",)).draw(np.zeros((400, 200), int)) for _ in indices)
        return Drawn(
            dataset="voc/x",
            probe="linear",
            indices=indices,
            images=truth,
            ground_truths=truth,
            predictions=flat,
        )

    return make


def test_panel__models_stand_side_by_side(drawn, tmp_path):
    add_to_panel(drawn(10), tmp_path, "A/1")
    add_to_panel(drawn(20), tmp_path, "B")
    path = add_to_panel(drawn(30), tmp_path, "A/1")  # probed again
    (panel,) = read_panels(tmp_path)
    assert panel.columns == ("image", "ground truth", "A/1", "B")
    assert len(panel.rows) == 2 and panel.title == "voc/x: linear probes on test images"
    files = json.loads(path.read_text())["rows"][0]
    with Image.open(tmp_path / files[2]) as mine, Image.open(tmp_path / files[3]) as other:
        assert mine.size == (96, 192)
        assert (mine.getpixel((0, 0)), other.getpixel((0, 0))) == ((30,) * 3, (20,) * 3)


def test_panel__long_names_can_be_written_and_stay_apart(drawn, tmp_path):
    for colour, model in ((10, "模" * 120 + "a"), (20, "模" * 120 + "b")):
        add_to_panel(replace(drawn(colour), dataset="素材集" * 40), tmp_path, model)
    (panel,) = read_panels(tmp_path)
    assert len(panel.columns) == 4 and len(set(panel.rows[0][2:])) == 2


def test_panel__other_test_images_begin_anew(drawn, tmp_path):
    add_to_panel(drawn(10), tmp_path, "A")
    add_to_panel(drawn(20, indices=(1,)), tmp_path, "B")
    (panel,) = read_panels(tmp_path)
    assert panel.columns == ("image", "ground truth", "B") and len(panel.rows) == 1


def test_panel__probes_that_end_together_keep_both_columns(tmp_path):
    picture = (np.zeros((4, 4, 3), np.uint8),)
    drawn = {"images": picture, "ground_truths": picture, "predictions": picture}
    one = Drawn(dataset="voc", probe="linear", indices=(0,), **drawn)

    def add(number: int) -> None:
        add_to_panel(one, tmp_path, f"model {number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))  # raises what a thread raised
    panel = json.loads((tmp_path / "voc--linear.json").read_text())
    assert set(panel["columns"][2:]) == {f"model {number}" for number in range(8)}


def test_panel__pictures_of_one_pixel_s_width(tmp_path):
    picture = (np.zeros((600, 1, 3), np.uint8),)
    drawn = {"images": picture, "ground_truths": picture, "predictions": picture}
    add_to_panel(Drawn(dataset="voc", probe="linear", indices=(0,), **drawn), tmp_path, "m")
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as shown:
            assert shown.size == (1, 192)
