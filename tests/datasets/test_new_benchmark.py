"""A benchmark that this file adds: a reader with its check, and one row of the catalogue.

Nothing else of the package knows it, and every command works on it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.cli import main
from cliptex.datasets.catalogue import LAYOUTS, Layout, benchmark_of
from cliptex.datasets.check_report import Check, CheckReport, first_with, names_in, split_of
from cliptex.datasets.protocol import DenseItem, paired, read_image, require
from cliptex.labels.kinds import ClassMap
from cliptex.results import read_results
from cliptex.shards.write import ShardWriter

TREE = "  ROOT/SPLIT/KEY.png, ROOT/SPLIT/masks/KEY.png   (0 = floor, 1 = wall)"


class Tiles:
    """Pictures with a mask each."""

    def __init__(self, root: str | Path, split: str, *, name: str = "tiles") -> None:
        self.name = name
        self.kind = ClassMap(("floor", "wall"), 255)
        self._files = sorted(require(Path(root) / split, TREE).glob("*.png"))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> DenseItem:
        path = self._files[index]
        mask = path.parent / "masks" / path.name
        with Image.open(mask) as picture:
            return paired(read_image(path, upright=False), np.array(picture), path, mask)


def _fill(report: CheckReport) -> None:
    for name, official in report.official.items():
        masks = report.path / name / "masks"
        there = names_in(report.path / name)
        report.splits.append(split_of(name, sorted(names_in(masks)), there, official, masks.parent))


CHECK = Check(text=TREE, find=lambda path: first_with(path, (), ("*/masks",)), fill=_fill)

ROW = Layout(
    name="tiles",
    task="segmentation",
    reader=f"{__name__}:Tiles",
    test=("test",),
    benchmark="tiles",
    known_as=r"\btiles\b",
    counts={"train": 4, "test": 2},
    source="nowhere but here",
    check=f"{__name__}:CHECK",
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The set on disk, and its row in the table."""
    monkeypatch.setitem(LAYOUTS, ROW.name, ROW)
    random = np.random.default_rng(0)
    for split, count in ROW.counts.items():
        (tmp_path / "set" / split / "masks").mkdir(parents=True)
        for number in range(count):
            ids = np.zeros((64, 64), np.uint8)
            ids[:, 32:] = 1
            colours = 200 * ids[..., None] + random.integers(0, 50, (64, 64, 3), np.uint8)
            Image.fromarray(colours).save(tmp_path / "set" / split / f"{number}.png")
            Image.fromarray(ids).save(tmp_path / "set" / split / "masks" / f"{number}.png")
    return tmp_path / "set"


def test_datasets_check(root: Path, capsys) -> None:
    for more in ([], ["--kind", "tiles"], ["--decode"]):
        assert main(["datasets", "check", str(root), *more]) == 0
        said = capsys.readouterr().out
        assert "tiles: " in said and "train: 4 of 4" in said and "test: 2 of 2" in said
    (root / "test/0.png").write_bytes(b"cut off")
    assert main(["datasets", "check", str(root), "--decode"]) == 2
    assert "0.png" in capsys.readouterr().out


def test_datasets_overlap(root: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shards", prefix="web") as shards:
        shards.add("0", (root / "test/0.png").read_bytes(), "png", "a wall")
    out = tmp_path / "rows.jsonl"
    words = ["--data", tmp_path / "shards", "--dataset", "tiles", "--root", root, "--out", out]
    assert main(["datasets", "overlap", *map(str, words)]) == 0
    (row,) = read_results(out)
    assert (row.dataset, row.n) == ("tiles", 2) and row.value >= 50


@pytest.mark.parametrize("command", ["probe --epochs 1 --lr 0.1", "zeroshot"])
def test_probe_and_zeroshot(root: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "rows.jsonl"
    words = ["--model", "playroom", "--dataset", "tiles", "--root", root, "--out", out]
    assert main([*command.split(), *map(str, words), "--resolution", "64"]) == 0
    rows = read_results(out)
    assert {row.dataset for row in rows} == {"tiles"} and {row.n for row in rows} == {2}
    assert "miou" in {row.metric for row in rows}


def test_leaks_and_help(root: Path, capsys) -> None:
    assert benchmark_of("tiles", "any") == benchmark_of("folder", "my_tiles") == "tiles"
    words = ["--model", "playroom", "--dataset", "tilse", "--root", str(root), "--out", "r.jsonl"]
    for command in ("probe", "zeroshot"):
        assert main([command, *words]) == 2
        assert "did you mean tiles?" in capsys.readouterr().err
