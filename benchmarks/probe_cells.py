"""Every (model, data set) cell of the probes through the command line, each with numbers or error.

    python benchmarks/probe_cells.py --ours CHECKPOINT --data DATA --playroom HOME --out OUT

DATA holds VOCdevkit, coco-mini, nyu-mini, imagenette-mini and flickr8k-mini; HOME is an export of
`cliptex playroom export home --count 80`. The models are ours (the folder of a saved CLIP),
open_clip's RN50 and timm's DINOv2 ViT-S/14, the last two with random weights. Trainings are as
short as they can be: this shows what runs, not what is good. A finished cell is not run again;
OUT/cells.md is the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

SHORT = ("--epochs", "1", "--batch-size", "8", "--warmup-steps", "1", "--resolution", "128")
DENSE = ("--recipe", "paper", *SHORT)
SHOWN = ("miou", "absrel", "a30", "top1", "ap_box", "ap_mask", "image_r5", "text_r5")


@dataclass(frozen=True)
class Cell:
    """One command: `cliptex COMMAND --model MODEL ...`."""

    model: str
    dataset: str
    command: str
    arguments: tuple[str, ...]


def cells(models: dict[str, str], data: Path, home: Path) -> list[Cell]:
    """All cells, model by model."""
    found = []
    for name, model in models.items():
        for dataset, command, arguments in _sets(data, home):
            full = ("--model", model, "--name", name, *arguments)
            found.append(Cell(name, dataset, command, full))
    return found


def _sets(data: Path, home: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    places = (
        ("voc", "VOCdevkit", data / "VOCdevkit", "train_aug", "val"),
        ("coco", "coco-mini", data / "coco-mini", "train", "val"),
        ("nyu-depth", "nyu-mini", data / "nyu-mini", "train", "test"),
        ("nyu-normals", "nyu-mini", data / "nyu-mini" / "normals", "train", "test"),
        ("folder", "imagenette-mini", data / "imagenette-mini", "train", "val"),
        ("voc", "playroom", home / "VOCdevkit", "train_aug", "test"),
        ("ade20k", "playroom", home / "ADEChallengeData2016", "training", "test"),
        ("coco", "playroom", home / "coco", "train", "test"),
        ("nyu-depth", "playroom", home / "nyu", "train", "test"),
        ("nyu-normals", "playroom", home / "nyu", "train", "test"),
        ("folder", "playroom", home / "classes", "train", "test"),
    )
    rows: list[tuple[str, str, tuple[str, ...]]] = []
    for layout, source, root, train, test in places:
        where = ("--dataset", layout, "--root", str(root))
        splits = ("--train-split", train, "--test-split", test)
        if layout == "coco":
            options = ("--recipe", "small", "--probe", "mask-rcnn", "ssd", *SHORT)
        else:
            options = DENSE
        rows.append((f"{layout} ({source})", "probe", (*where, *splits, *options)))
    captioned = (
        ("flickr8k-mini", data / "flickr8k-mini" / "dataset_flickr8k.json"),
        ("playroom", home / "captions" / "dataset_playroom.json"),
    )
    for source, file in captioned:
        where = ("--dataset", "karpathy", "--root", str(file), "--images", f"{file.parent}/images")
        rows.append((f"karpathy ({source})", "zeroshot", (*where, "--resolution", "128")))
    return rows


def run_cell(cell: Cell, folder: Path) -> None:
    """Run the command in its own process and write what came of it to `folder`/NAME.json."""
    name = f"{cell.model}--{cell.dataset}".replace(" ", "-").replace("/", "-")
    place, rows = folder / f"{name}.json", folder / f"{name}.jsonl"
    if place.exists():
        return
    rows.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cliptex", cell.command, *cell.arguments, "--out", str(rows)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = round(time.perf_counter() - start, 1)
    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    numbers = {
        f"{row['probe'] or row['task']} {row['metric']}": row["value"]
        for row in found
        if row["metric"] in SHOWN
    }
    random = sorted({row["checkpoint"] == "random" for row in found})
    error = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]
    facts = {"seconds": seconds, "numbers": numbers, "random": random == [True], "error": error}
    place.write_text(json.dumps({**asdict(cell), **facts}, indent=1) + "\n")
    print(f"{cell.model:24} {cell.dataset:28} {seconds:7.1f} s  {error or 'ok'}", flush=True)


def table(folder: Path) -> str:
    """All finished cells as a table in Markdown."""
    lines = ["| model | data set | probe: value | s |", "|---|---|---|---|"]
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text())
        values = ", ".join(f"{name} {value:.3g}" for name, value in cell["numbers"].items())
        model = cell["model"] + (" (random weights)" if cell["random"] else "")
        said = f"ERROR: {cell['error']}" if cell["error"] else values
        lines.append(f"| {model} | {cell['dataset']} | {said} | {cell['seconds']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is not done yet, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ours", required=True, help="folder of a saved CLIP")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--playroom", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    models = {
        "ours": options.ours,
        "RN50": "open_clip:RN50",
        "DINOv2 ViT-S-14": "timm:vit_small_patch14_dinov2",
    }
    folder = options.out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells(models, options.data, options.playroom):
        run_cell(cell, folder)
    text = table(folder)
    (options.out / "cells.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
