"""`cliptex label score` of stored labels, as typed, on every benchmark in its real layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from cliptex.cli.app import USER_ERROR, main
from cliptex.labels.codecs import png_bytes
from cliptex.shards.write import ShardWriter

SIZE = (6, 8)
FLOOR = np.array([0, 1, 0])


def ade20k(root: Path) -> tuple[str, ...]:
    """Class 1 (wall) everywhere."""
    folders = [root / "ADEChallengeData2016" / kind / "validation" for kind in KINDS]
    for folder in folders:
        folder.mkdir(parents=True)
        for key in ("ADE_val_00000001", "ADE_val_00000002"):
            shape = (*SIZE, 3) if folder == folders[0] else SIZE
            (folder / f"{key}.png").write_bytes(png_bytes(np.ones(shape, np.uint8)))
    (root / "ADEChallengeData2016/classes.txt").write_text("wall\nsky\n")
    return "ADE_val_00000001", "ADE_val_00000002"


def nyu_depth(root: Path) -> tuple[str, ...]:
    """Depths from 2 m to 4 m; pictures 1 and 2 of the file are the test split."""
    root.mkdir()
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.zeros((3, 3, *SIZE[::-1]), np.uint8)
        file["depths"] = np.broadcast_to(depths().T, (3, *SIZE[::-1]))
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": [[1]], "testNdxs": [[2], [3]]})
    return "000001", "000002"


def nyu_normals(root: Path) -> tuple[str, ...]:
    """A floor."""
    for kind in ("img", "norm"):
        folder = root / "normals/test" / kind
        folder.mkdir(parents=True)
        for key in ("000001", "000002"):
            (folder / f"{key}.png").write_bytes(png_bytes(floor()))
    return "000001", "000002"


def depths() -> np.ndarray:
    return np.broadcast_to(np.linspace(2, 4, SIZE[1], dtype=np.float32), SIZE)


def floor() -> np.ndarray:
    return np.broadcast_to(np.rint((FLOOR + 1) * 127.5), (*SIZE, 3)).astype(np.uint8)


KINDS = ("images", "annotations")
CASES: Mapping[str, tuple[Callable[[Path], tuple[str, ...]], np.ndarray, list[str], str, float]] = {
    "ade20k": (ade20k, np.zeros(SIZE, np.uint8), ["classes", "--classes", "NAMES"], "miou", 100),
    "nyu-depth": (
        nyu_depth,
        np.rint(depths() * 1000).astype(np.uint16),
        ["depth", "--scale", "0.001", "--unit", "m"],
        "absrel_unaligned",
        0,
    ),
    "nyu-normals": (
        nyu_normals,
        floor(),
        ["normals", "--frame", "right-down-forward-away"],
        "a11",
        100,
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_score__of_a_store(kind: str, tmp_path: Path, capsys) -> None:
    build, label, form, metric, expected = CASES[kind]
    root, data, source = tmp_path / "root", tmp_path / "data", tmp_path / "source"
    keys = build(root)
    source.mkdir()
    (tmp_path / "names.txt").write_text("wall\nsky\n")
    with ShardWriter(data, prefix="x") as writer:
        for key in keys:
            writer.add(key, png_bytes(np.zeros((*SIZE, 3), np.uint8)), "png", "")
    (source / f"{keys[1]}.png").write_bytes(png_bytes(label))  # the first has no label
    words = [str(tmp_path / "names.txt") if word == "NAMES" else word for word in form]
    adopt = ["--data", str(data), "--source", str(source), "--out", str(tmp_path / "labels")]
    learnt = ["--learnt-from", kind, "--name", "mine", "--origin", "hand", "--form", *words]
    assert main(["label", "adopt", *adopt, *learnt, "--max-failures", "1"]) == 0
    split = "validation" if kind == "ade20k" else "test"
    score = ["label", "score", "--root", str(root), "--dataset-kind", kind, "--split", split]
    out = ["--labels", str(tmp_path / "labels/mine"), "--out", str(tmp_path / "results.jsonl")]
    assert main([*score, *out]) == 0
    printed = capsys.readouterr().out
    assert "LEAK" in printed and "1 pictures without a label are left out" in printed
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    row = {row["metric"]: row for row in map(json.loads, lines)}[metric]
    assert row["value"] == pytest.approx(expected, abs=2e-3) and row["n"] == 1
    assert row["protocol"]["images_without_prediction"] == 1 and row["leak"]
    assert main(score) == USER_ERROR
    assert "either --expert or --labels" in capsys.readouterr().err


def test_score__on_layouts_without_keys_takes_an_expert(tmp_path: Path, capsys) -> None:
    name = tmp_path / "dsine_eval/nyuv2/test/000000"
    name.parent.mkdir(parents=True)
    for kind in ("img", "normal"):
        picture = png_bytes(np.full((64, 64, 3), (128, 128, 255), np.uint8))
        name.with_name(f"000000_{kind}.png").write_bytes(picture)
    words = ["--root", str(tmp_path / "dsine_eval"), "--dataset-kind", "dsine-normals"]
    words = ["label", "score", *words, "--split", "test"]
    assert main([*words, "--expert", "playroom:normals"]) == 0
    assert "1 images" in capsys.readouterr().out
    assert main([*words, "--labels", str(tmp_path)]) == USER_ERROR
    assert "--labels: pictures of the layout dsine-normals have no keys" in capsys.readouterr().err


def test_adopt__with_another_codec(tmp_path: Path) -> None:
    from cliptex.labels.reader import LabelReader

    with ShardWriter(tmp_path / "data", prefix="x") as writer:
        writer.add("a", png_bytes(np.zeros((*SIZE, 3), np.uint8)), "png", "")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.png").write_bytes(png_bytes(floor()))
    places = ["--data", str(tmp_path / "data"), "--source", str(tmp_path / "source"), "--out"]
    words = [str(tmp_path / "labels"), "--name", "mine", "--origin", "hand", "--form", "normals"]
    more = ["--frame", "right-down-forward-away", "--codec", "png-normal-rgb8"]
    assert main(["label", "adopt", *places, *words, *more]) == 0
    assert LabelReader(tmp_path / "labels/mine").manifest.codec == "png-normal-rgb8"
