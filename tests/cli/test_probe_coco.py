"""`cliptex probe --dataset coco` as it is typed, on a few pictures with rectangles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptex.cli.app import main
from cliptex.probes.baselines import MEAN, PIXELS, RANDOM
from cliptex.probes.boxes import BoxLearner
from cliptex.probes.options import ProbeOptions
from cliptex.probes.recipes import small
from cliptex.report.bootstrap import read_per_image
from cliptex.results import read_results


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """COCO's layout: eight pictures to learn from, three to score, none of them square."""
    root, rng = tmp_path / "coco", np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", 8), ("val", 3)):
        (root / f"{split}2017").mkdir()
        images, objects = [], []
        for i in range(count):
            picture = np.full((60, 80, 3), 120, np.uint8)
            left, top = (int(v) for v in rng.integers(0, 30, 2))
            picture[top : top + 25, left : left + 30] = (220, 30, 30)
            about = {"id": i, "file_name": f"{i}.jpg", "height": 60, "width": 80}
            corners = [left, top, left + 30, top, left + 30, top + 25, left, top + 25]
            thing = {"id": i + 1, "image_id": i, "category_id": 5, "iscrowd": 0, "area": 750}
            objects.append({**thing, "bbox": [left, top, 30, 25], "segmentation": [corners]})
            images.append(about)
            Image.fromarray(picture).save(root / f"{split}2017" / f"{i}.jpg")
        categories = [{"id": 5, "name": "box"}]
        content = {"images": images, "annotations": objects, "categories": categories}
        path = root / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content))
    return root


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["probe", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def typed(root: Path, *more: str) -> list[str]:
    words = ["--model", "playroom", "--dataset", "coco", "--root", str(root), "--recipe", "small"]
    return [*words, "--test-split", "val", *more]


SHORT = ("--resolution", "64", "--epochs", "2", "--batch-size", "4", "--warmup-steps", "1")


def test_coco__both_heads_give_rows_and_go_on(
    coco: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, state = tmp_path / "r.jsonl", tmp_path / "state"
    arguments = typed(coco, "--out", str(out), "--probe", "mask-rcnn", "ssd", *SHORT)
    arguments += ["--state", str(state), "--name", "mine"]
    code, text, err = run(capsys, *arguments)
    assert code == 0, err
    rows = {(r.probe, r.metric): r for r in read_results(out)}
    assert {"ap_box", "ap_mask"} <= {m for p, m in rows if p == "mask_rcnn"}
    assert "ap_mask" not in {m for p, m in rows if p == "ssd"}
    row = rows["mask_rcnn", "ap_box"]
    assert (row.model, row.task, row.dataset, row.n) == ("mine", "detection", "coco", 3)
    assert row.variant == "small recipe, 64 px, val split" and len(row.checkpoint) == 64
    assert "detection mask_rcnn ap_box on coco, seed 0" in text
    kept = sorted(p.name for p in (tmp_path / "per_image").iterdir())
    assert len(kept) == 3 and "objects" in read_per_image(tmp_path / "per_image" / kept[0])
    # what is trained is not trained again
    monkeypatch.setattr(BoxLearner, "learn", None)
    code, _, err = run(capsys, *arguments)
    assert code == 0, err
    again = read_results(out)[len(rows) :]
    assert [r.value for r in again] == [r.value for r in rows.values()]


def test_coco__controls_stand_beside_the_model(coco: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "r.jsonl"
    arguments = typed(coco, "--out", str(out), "--probe", "ssd", *SHORT, "--precision", "bf16")
    code, _, err = run(capsys, *arguments, "--controls", "--name", "mine")
    assert code == 0, err
    rows = [row for row in read_results(out) if row.metric == "ap_box"]
    assert [row.model for row in rows] == ["mine", RANDOM, PIXELS, MEAN]
    assert {(row.probe, row.variant) for row in rows} == {("ssd", "small recipe, 64 px, val split")}
    assert rows[0].protocol["precision"] == "bf16" and rows[3].value > 0


def test_coco__processes_share_probes_and_seeds(
    coco: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def values(name: str) -> dict:
        out = tmp_path / f"{name}.jsonl"
        arguments = typed(coco, "--out", str(out), "--seeds", "0", "1", *SHORT)
        code, _, err = run(capsys, *arguments, "--state", str(tmp_path / name))
        assert code == 0, err
        rows = read_results(out)
        found = {(r.probe, r.seed, r.metric): r.value for r in rows}
        assert len(found) == len(rows)
        return found

    alone = values("alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    first = values("shared")
    monkeypatch.setenv("RANK", "1")
    both = values("shared")  # appended to the same file
    assert {seed for _, seed, _ in first} == {0} and both == alone
    assert {p.name for p in (tmp_path / "shared/playroom/coco/small/ssd").iterdir()} == {
        "process0of2",
        "process1of2",
    }


def test_coco__dry_run_counts(coco: Path, capsys) -> None:
    arguments = typed(coco, "--probe", "ssd", "--epochs", "3", "--batch-size", "4", "--dry-run")
    code, text, err = run(capsys, *arguments)
    assert code == 0, err
    assert "8 x 3 + 3" in text and "ssd" in text and "mask_rcnn" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "fast"], "detection has no fast recipe; set `--recipe paper` or small"),
        (["--probe", "linear"], "--probe: detection supports mask-rcnn and ssd, not linear"),
        (["--no-augmentation"], "detection probes learn from augmented pictures"),
        (["--batch-size", "1", "--resolution", "64"], "SSD's level of stride 64 is one cell of a"),
        (["--resolution", "100"], "multiple of 32"),
        (["--test-split", "test"], "no split 'test', only"),
    ],
)
def test_coco__mistakes_are_one_line(
    coco: Path, tmp_path: Path, capsys, arguments: list[str], message: str
) -> None:
    code, _, err = run(capsys, *typed(coco, "--out", str(tmp_path / "r"), *arguments))
    assert code == 2 and message in err and len(err.splitlines()) == 1


def test_epochs__drops_of_the_rate_move_along() -> None:
    def drops(**given: Any) -> tuple[int, ...]:
        options = ProbeOptions(model="playroom", recipe="paper", probe=("mask-rcnn",), **given)
        return options.configs("detection")[0].schedule.milestones

    assert drops() == drops(warmup_steps=1) == (22, 24)
    assert drops(epochs=100) == (88, 96)  # of the library's 25 epochs of four passes each


def test_detectors__need_objects(voc: Path, capsys) -> None:
    arguments = ["--model", "playroom", "--dataset", "voc", "--root", str(voc)]
    code, _, err = run(
        capsys, *arguments, "--recipe", "paper", "--probe", "linear", "ssd", "--dry-run"
    )
    assert code == 2 and "--probe: ssd needs objects to learn from; set `--dataset coco`" in err


def test_dry_run__counts_the_small_recipe_of_dense_probes(voc: Path, capsys) -> None:
    arguments = ["--model", "playroom", "--dataset", "voc", "--root", str(voc), "--dry-run"]
    code, text, err = run(capsys, *arguments, "--recipe", "small", "--probe", "linear")
    assert code == 0, err
    assert f"4 x {small('segmentation').epochs} + 2" in text
