"""Panels of pictures for the report, to which every probed model adds its column."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from cliptex.files import file_name, load_json, locked_beside, write_atomic
from cliptex.probes.pictures import Drawn

HEIGHT = 192
"""Pixels to which pictures are shrunk for the page."""
IMAGE, TRUTH = "image", "ground truth"


def add_to_panel(drawn: Drawn, folder: Path, model: str) -> Path:
    """Put `model`'s predictions beside those of others in `folder`/DATASET--PROBE.json.

    A column of the same model is replaced; a panel of other test images is begun anew. The report
    shows the panels of the folder `panels` that lies beside its results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked_beside(folder / "panels"):  # another model's probe may add its column, too
        return _add(drawn, folder, model)


def _add(drawn: Drawn, folder: Path, model: str) -> Path:
    name = f"{drawn.dataset}--{drawn.probe}"
    path = folder / f"{file_name(name)}.json"
    columns = _columns(path, drawn)
    shown = {IMAGE: drawn.images, TRUTH: drawn.truths, model: drawn.predictions}
    for number, (column, pictures) in enumerate(shown.items()):
        part = str(number) if number < 2 else model
        files = [f"{file_name(f'{name}-{index:05d}-{part}')}.png" for index in drawn.indices]
        for file, picture in zip(files, pictures, strict=True):
            _shrunk(picture).save(folder / file)
        columns[column] = files
    panel = {
        "title": f"{drawn.dataset}: {drawn.probe} probes on test images",
        "note": drawn.note,
        "indices": drawn.indices,
        "columns": list(columns),
        "rows": list(zip(*columns.values(), strict=True)),
    }
    write_atomic(path, (json.dumps(panel, indent=1) + "\n").encode())
    return path


def _columns(path: Path, drawn: Drawn) -> dict[str, list[str]]:
    """The columns that the panel has, where it shows the same test images."""
    if not path.exists():
        return {}
    panel = load_json(path)
    if tuple(panel["indices"]) != drawn.indices:
        return {}
    return {c: [row[i] for row in panel["rows"]] for i, c in enumerate(panel["columns"])}


def _shrunk(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    scale = min(1.0, HEIGHT / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)
