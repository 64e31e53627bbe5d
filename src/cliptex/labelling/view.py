"""One self-contained HTML page of images with their labels beside and over them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace

import numpy as np
from jinja2 import Environment
from PIL import Image

from cliptex.files import AnyPath, write_atomic
from cliptex.labelling.stats import draw_samples
from cliptex.labelling.stores import expert_folders
from cliptex.labels.codecs import fitted_size
from cliptex.labels.reader import LabelReader
from cliptex.labels.sampling import WHOLE, sample_nearest
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import decode_image

SIDE = 224  # longer side of a picture on the page
OPACITY = 0.6

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Labels in {{ title }}</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 24px; color: #222; background: #fff; }
table { border-collapse: collapse; } td, th { padding: 6px; vertical-align: top; text-align: left; }
img { display: block; margin-bottom: 4px; }
.note { color: #666; max-width: 224px; white-space: pre-line; }
.chip { display: inline-block; width: 10px; height: 10px; margin: 0 3px 0 8px; }
.entry { white-space: nowrap; }
</style></head><body>
<h1>Labels in {{ title }}</h1>
<p>{{ rows|length }} images drawn with seed {{ seed }}. Each label alone, then over its image,
then its confidence where it has one.</p>
<table><tr><th>image</th>{% for name in experts %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr><td><img src="{{ row.image }}" alt="image {{ row.name }}">
<div class="note"><b>{{ row.name }}</b><br>{{ row.text }}</div></td>
{% for cell in row.cells %}<td>{% if cell %}<img src="{{ cell.label }}" alt="label">
<img src="{{ cell.overlay }}" alt="label over image"><div class="note">
{%- for colour, text in cell.legend %}<span class="entry"><span class="chip"
style="background: {{ colour }}"></span>{{ text }}</span> {% endfor %}</div>
{% if cell.confidence %}<img src="{{ cell.confidence }}" alt="confidence">
<div class="note">{{ cell.confidence_text }}</div>{% endif %}
{%- else %}<span class="note">no label</span>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}</table></body></html>
"""


@dataclass(frozen=True)
class Cell:
    """One label on the page: data URLs, and (colour, text) pairs of its legend.

    `confidence` is empty where none is stored.
    """

    label: str
    overlay: str
    legend: list[tuple[str, str]]
    confidence: str = ""
    confidence_text: str = ""


@dataclass(frozen=True)
class Row:
    """One image with its labels by expert; None where there is none."""

    name: str
    text: str
    image: str
    cells: list[Cell | None]


def write_view(
    shards: ImageTextShards, labels: AnyPath, out: AnyPath, *, count: int = 24, seed: int = 0
) -> AnyPath:
    """Write the page for `count` images that the first expert labelled; returns `out`.

    `labels` is a store or one expert's folder. The same store and seed give the same bytes.
    Raises FileNotFoundError where there are no labels.
    """
    readers = [LabelReader(folder) for folder in expert_folders(labels)]
    samples = draw_samples(readers[0], count, seed) if readers else []
    if not samples:
        raise FileNotFoundError(f"{labels} holds no labels; `cliptex label run` makes them")
    page = Environment(autoescape=True).from_string(_PAGE)
    html = page.render(
        title=labels.name,
        seed=seed,
        experts=[reader.manifest.expert for reader in readers],
        rows=[_row(shards, readers, shard, key) for shard, key in samples],
    )
    write_atomic(out, html.encode())
    return out


def _row(shards: ImageTextShards, readers: list[LabelReader], shard: str, key: str) -> Row:
    sample = shards.read(shard, key)
    image = decode_image(sample.image)
    size = fitted_size((image.shape[0], image.shape[1]), SIDE)
    small = np.asarray(Image.fromarray(image).resize((size[1], size[0])))
    return Row(
        name=f"{shard}:{key}",
        text=sample.text,
        image=_data_url(small, "JPEG"),
        cells=[_cell(reader, shard, key, small) for reader in readers],
    )


def _cell(reader: LabelReader, shard: str, key: str, image: np.ndarray) -> Cell | None:
    stored = reader.read(shard, key, confidence=True)
    if stored is None:
        return None
    size = (image.shape[0], image.shape[1])
    colours = sample_nearest(reader.kind.draw(stored.array), WHOLE, size)
    mixed = np.rint(OPACITY * colours + (1 - OPACITY) * image).astype(np.uint8)
    cell = Cell(
        _data_url(colours, "PNG"), _data_url(mixed, "JPEG"), reader.kind.legend(stored.array)
    )
    if stored.confidence is None:
        return cell
    gray = np.rint(255 * sample_nearest(stored.confidence, WHOLE, size)).astype(np.uint8)
    meaning = f" ({reader.manifest.confidence})" if reader.manifest.confidence else ""
    text = f"white is confident, mean {stored.confidence.mean():.2f}{meaning}"
    return replace(cell, confidence=_data_url(gray, "PNG"), confidence_text=text)


def _data_url(array: np.ndarray, encoding: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, encoding)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{encoding.lower()};base64,{text}"
