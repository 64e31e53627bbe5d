"""The last stage of a run: gather rows, per-image scores and pictures, and write the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cliptex.files import write_atomic
from cliptex.labels.reader import LabelReader
from cliptex.pipeline.suite import PER_IMAGE, PICTURES, RESULTS
from cliptex.report.names import model_name, probe_name
from cliptex.report.page import write_report
from cliptex.results import Result, read_results
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import decode_image

PANELS = "panels"
OF_PROBE = "--"
LABELLED_EXAMPLES = 6
TILE = 128
"""Height in pixels of the pictures on the page."""


def collect(
    out: Path, parts: Sequence[str], *, web: Path, title: str, start: str | None = None
) -> Path:
    """Merge the folders `out`/PART into `out` and write `out`/report.html.

    `out`/results.jsonl, per_image/ and panels/ are made anew each time from the parts alone.
    """
    rows = [row for part in parts for row in read_results(out / part / RESULTS)]
    lines = "".join(row.model_dump_json() + "\n" for row in rows)
    write_atomic(out / RESULTS, lines.encode())
    for folder in (PER_IMAGE, PANELS):
        shutil.rmtree(out / folder, ignore_errors=True)
    for part in parts:
        for path in sorted((out / part / PER_IMAGE).glob("*.npz")):
            (out / PER_IMAGE).mkdir(exist_ok=True)
            shutil.copyfile(path, out / PER_IMAGE / path.name)
    draw_label_panel(out, web)
    prediction_panels(out, parts, rows)
    page = out / "report.html"
    write_report(out, page, title=title, start=start)
    return page


def prediction_panels(out: Path, parts: Sequence[str], rows: Sequence[Result]) -> None:
    """One panel a folder of pictures: image, truth, and each model's prediction (first seed).

    Folders are named by data set, or by data set and probe with OF_PROBE between them.
    """
    seed = min(row.seed for row in rows)
    columns: dict[str, dict[str, Path]] = {}  # data set -> model -> folder of pictures
    for part in parts:
        part_rows = read_results(out / part / RESULTS)
        if not part_rows or part_rows[0].seed != seed:
            continue
        for folder in sorted((out / part / PICTURES).glob("*")):
            columns.setdefault(folder.name, {})[part_rows[0].model] = folder
    for dataset, models in columns.items():
        first = next(iter(models.values()))
        indices = [p.name.removesuffix("-image.png") for p in sorted(first.glob("*-image.png"))]
        grid = [
            [first / f"{i}-image.png", first / f"{i}-truth.png"]
            + [folder / f"{i}-prediction.png" for folder in models.values()]
            for i in indices
        ]
        names = ["image", "ground truth", *(model_name(model) for model in models)]
        title, _, probe = dataset.partition(OF_PROBE)
        title = f"{title}: {probe_name(probe or 'linear')} probes on test images"
        write_panel(out, dataset, title, names, grid)


def write_panel(
    out: Path, name: str, title: str, columns: Sequence[str], grid: Sequence[Sequence[Path]]
) -> None:
    """`out`/panels/NAME.json and copies of the pictures it shows, at most TILE pixels high."""
    folder = out / PANELS
    folder.mkdir(exist_ok=True)
    rows = []
    for r, pictures in enumerate(grid):
        row = []
        for c, path in enumerate(pictures):
            target = folder / f"{name}-{r}-{c}.png"
            with Image.open(path) as picture:
                scale = min(1.0, TILE / picture.height)
                size = (round(picture.width * scale), round(picture.height * scale))
                picture.convert("RGB").resize(size, Image.Resampling.BILINEAR).save(target)
            row.append(target.name)
        rows.append(row)
    panel = {"title": title, "columns": list(columns), "rows": rows}
    write_atomic(folder / f"{name}.json", (json.dumps(panel, indent=1) + "\n").encode())


def draw_label_panel(out: Path, web: Path) -> None:
    """Images of the training set with the experts' labels over them."""
    folders = sorted(path.parent for path in (out / "labels").glob("*/manifest.json"))
    shards = ImageTextShards(web, cache=out / "index")
    readers = [LabelReader(folder) for folder in folders]
    work = out / PICTURES
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    grid = []
    for row, position in enumerate(np.linspace(0, len(shards) - 1, LABELLED_EXAMPLES).astype(int)):
        shard, key = shards.locate(int(position))
        image = decode_image(shards.read_image(shard, key))
        pictures = [image]
        for reader in readers:
            stored = reader.read(shard, key)
            missing = np.zeros_like(image)
            drawn = missing if stored is None else reader.kind.draw_over(image, stored.array)
            pictures.append(drawn)
        grid.append([work / f"label-{row}-{column}.png" for column in range(len(pictures))])
        for path, picture in zip(grid[-1], pictures, strict=True):
            Image.fromarray(picture).save(path)
    names = ["image", *(folder.name for folder in folders)]
    write_panel(out, "0-labels", "Experts' labels on training images", names, grid)
    shutil.rmtree(work)
