"""What there is to import: captions files of several kinds, as lists of items."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cliptex.files import AnyPath
from cliptex.shards.captions import decode_caption
from cliptex.shards.images import IMAGE_SUFFIXES

IMAGE_COLUMNS = (
    *("image", "file", "filename", "file_name", "path", "filepath", "file_path"),
    *("image_path", "image_name", "image_file", "img", "url"),
)
CAPTION_COLUMNS = (
    *("caption", "captions", "text", "texts", "sentence", "description", "alt_text", "alt"),
    *("title", "raw", "comment"),
)
KARPATHY_SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image to import.

    Attributes:
        name: how the source calls it, relative to the folder of images.
        captions: as the source gives them, uncleaned.
        meta: kept in the sample's KEY.json.
        key: its key, where the source has keys of its own.
    """

    name: str
    captions: tuple[str, ...]
    meta: dict[str, Any]
    key: str | None = None


def folder_items(captions_file: AnyPath, image_column: str, caption_column: str) -> list[Item]:
    """The rows of a CSV, TSV, JSONL or JSON captions file, in its order.

    Rows with the same image become one item with several captions. An empty column name means
    that the column is found by its name (`IMAGE_COLUMNS`, `CAPTION_COLUMNS`, any case).
    """
    rows = list(_rows(captions_file))
    if not rows:
        raise ValueError(f"{captions_file}: no rows")
    image_column = _column(captions_file, rows[0], image_column, IMAGE_COLUMNS)
    caption_column = _column(captions_file, rows[0], caption_column, CAPTION_COLUMNS)
    grouped: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        name, captions = row.get(image_column), row.get(caption_column)
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{captions_file}: row {number} has no image name in {image_column!r}")
        lines = captions if isinstance(captions, list) else [captions]
        grouped.setdefault(name.strip(), []).extend(str(x) for x in lines if x is not None)
    return [_item(name, captions) for name, captions in grouped.items()]


def karpathy_items(path: AnyPath, images: AnyPath, split: str) -> list[Item]:
    """The images of one split of a Karpathy JSON; "train" includes "restval"."""
    if split not in KARPATHY_SPLITS:
        raise ValueError(f"split must be one of {sorted(KARPATHY_SPLITS)}, not {split!r}")
    entries = _json_field(path, "images", "a Karpathy JSON")
    chosen = [entry for entry in entries if entry.get("split") in KARPATHY_SPLITS[split]]
    if not chosen:
        found = sorted({str(entry.get("split")) for entry in entries})
        raise ValueError(f"{path}: no image of split {split!r}; the splits are {found}")
    items = []
    for entry in chosen:
        name = entry["filename"]
        nested = f"{entry.get('filepath', '')}/{name}".lstrip("/")
        captions = [sentence["raw"] for sentence in entry.get("sentences", [])]
        items.append(_item(nested if (images / nested).is_file() else name, captions))
    return items


def coco_items(path: AnyPath) -> list[Item]:
    """The images of a COCO captions JSON, by image id, captions by annotation id."""
    entries = _json_field(path, "images", "a COCO captions JSON")
    captions: dict[int, list[str]] = {}
    for note in sorted(_json_field(path, "annotations", "a COCO captions JSON"), key=_id):
        if "caption" not in note:
            raise ValueError(
                f"{path}: annotation {note.get('id')} has no caption; it seems to be "
                "another COCO file. The captions are in captions_*.json"
            )
        captions.setdefault(note["image_id"], []).append(note["caption"])
    return [
        _item(entry["file_name"], captions.get(entry["id"], []), image_id=entry["id"])
        for entry in sorted(entries, key=_id)
    ]


def files_items(folder: AnyPath) -> list[Item]:
    """The samples of one subfolder of img2dataset's "files" output, by name."""
    items = []
    stems = {path.name.split(".")[0]: path for path in _sorted(folder) if _is_image(path)}
    for stem, image in stems.items():
        text, meta = folder / f"{stem}.txt", folder / f"{stem}.json"
        caption = (decode_caption(text.read_bytes()),) if text.is_file() else ()
        content = json.loads(meta.read_bytes()) if meta.is_file() else {}
        items.append(Item(name=image.name, captions=caption, meta=content, key=stem))
    return items


def _is_image(path: AnyPath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _sorted(folder: AnyPath) -> list[AnyPath]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _item(name: str, captions: Iterable[str], **meta: Any) -> Item:
    return Item(name=name, captions=tuple(captions), meta={"source": name, **meta})


def _id(entry: dict[str, Any]) -> int:
    return int(entry["id"])


def _json_field(path: AnyPath, name: str, what: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get(name), list):
        raise ValueError(f"{path}: not {what}: it has no list {name!r}")
    return content[name]


def _rows(path: AnyPath) -> Iterator[dict[str, Any]]:
    # line by line, so that one line in another encoding does not spoil the others
    lines = [decode_caption(line) for line in path.read_bytes().splitlines(keepends=True)]
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _json_row(path, number, line)
    elif suffix in (".csv", ".tsv", ".txt"):
        tab = suffix == ".tsv" or (suffix == ".txt" and lines and "\t" in lines[0])
        yield from csv.DictReader(io.StringIO("".join(lines)), delimiter="\t" if tab else ",")
    else:
        raise ValueError(f"{path}: a captions file ends in .csv, .tsv, .txt or .jsonl")


def _json_row(path: AnyPath, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}: line {number} is not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}: line {number} is not a JSON object")
    return row


def _column(path: AnyPath, row: dict[str, Any], wanted: str, known: tuple[str, ...]) -> str:
    names = {str(name).strip().lower(): name for name in row}
    for name in (wanted.lower(),) if wanted else known:
        if name in names:
            return names[name]
    looked = repr(wanted) if wanted else f"any of {', '.join(known)}"
    raise ValueError(f"{path}: no column {looked} among {list(row)}; name it explicitly")
