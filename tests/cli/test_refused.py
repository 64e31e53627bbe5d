"""Commands that are refused leave the disk as it was, and say why in one line."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from cliptex.cli import main
from cliptex.shards.write import ShardWriter

REFUSED = {
    "train playroom --data nowhere --out o": "nowhere: no such file or folder",
    "train playroom --data web --out file": "cannot be made: it is a file",
    "train playroom --data web --out file/o": "file is a file; give another path",
    "train playroom --data web --out file --dry-run": "cannot be made: it is a file",
    "train runs/confg.yaml --out o": "no such file (did you mean runs/config.yaml?)",
    "train runs --out o": "a run's folder; name its file: runs/config.yaml",
    "train --dry-run playroom --out o": "--dry-run stands where the recipe should",
    "train plyroom --out o": "did you mean playroom?",
    "train playroom --data web --labels web --out o --tasks deeplab-voc21": "name pairs of a task",
    "train playroom --data web --labels web --out o --tasks dpeth x": "did you mean depth?",
    "train playroom --data web --out o --batch-size 4 --steps 30": "`--warmup-steps 1`",
    "train playroom --data web --out o --steps 60": "--batch-size: 48 makes a batch of 48",
    "train playroom --data web --out o --batch-size 4 --resolution 120 120": "120 x 120",
    "train playroom --data web --labels web --out o --tasks depth x --batch-size 4": "x",
    "train runs/config.yaml --out o": "'dpeth' is unknown (did you mean depth?)",
    "probe --model playroom --dataset voc --root web --out o/r.jsonl": "JPEGImages does not exist",
    "probe --model playroom --dataset voc --root web --out file/r.jsonl": "it is a file",
    "probe --model playroom --dataset voc --root nowhere --out o/r.jsonl": "does not exist",
    "zeroshot --model playroom --dataset folder --root web --out o/r.jsonl": "no split",
    "zeroshot --model playroom --dataset folder --root web --out file/r.jsonl": "it is a file",
    "export nowhere --to open-clip --out o": "nowhere/model.json does not exist",
    "export playroom --to timm --out a/b/o": "timm cannot hold a convolutional stem",
    "export playroom --to open-clip --out file": "cannot be made: it is a file",
    "export playroom --to onnx --out o --size 33 33": "give multiples of 16",
    "blend playroom nowhere --out o": "nowhere/model.json does not exist",
    "blend playroom playroom --out o --alpha 2": "alpha",
    "blend playroom playroom --out file": "cannot be made: it is a file",
    "playroom export web --out file": "cannot be made: it is a file",
    "playroom export web --out o --count 0": "--count: 0 samples; give at least 1",
    "playroom export web --out o --size 0": "--size: pictures of 0 x 0 pixels",
    "playroom export home --out o --size 0": "--size: pictures of 0 x 0 pixels",
    "playroom export home --out file/o": "file is a file; give another path",
    "playroom zoo --out file": "cannot be made: it is a file",
    "playroom reproduce --out o --jobs 0": "jobs 0",
    "playroom reproduce --out file/o": "file is a file; give another path",
    "demo --out file": "cannot be made: it is a file",
    "demo --out o --seed -1": "seed -1",
    "photos --data-root web --out o": "flickr8k-mini does not exist",
    "report nowhere": "nowhere",
    "report web --out o/r.html": "results.jsonl",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file, eight pairs, and a run's folder whose configuration names no task."""
    root = tmp_path_factory.mktemp("place")
    (root / "file").write_text("text\n")
    picture = io.BytesIO()
    Image.new("L", (1, 1)).save(picture, "PNG")
    with ShardWriter(root / "web", prefix="web", samples_per_shard=8) as writer:
        for number in range(8):
            writer.add(f"{number:03d}", picture.getvalue(), "png", "grey")
    (root / "runs").mkdir()
    weights = "loss_weights: {clip: 1.0, dpeth: 5}"
    (root / "runs" / "config.yaml").write_text(
        f"model: {{name: playroom}}\ndata: web\nsteps: 3\n{weights}\n"
    )
    return root


def disk(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): (
            "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in root.rglob("*")
    }


@pytest.mark.parametrize("command", REFUSED)
def test_refused(command: str, place: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("CLIPTEX_QUIET", "1")
    before = disk(place)
    assert main(command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and REFUSED[command] in line
    assert disk(place) == before
