"""What there is to import: captions files of several kinds, as lists of items."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cliptex.files import AnyPath, parse_json, read_bytes
from cliptex.shards.captions import decode_caption, json_captions
from cliptex.shards.images import IMAGE_EXTENSIONS
from cliptex.shards.index import JSON_EXTENSION, TEXT_EXTENSIONS
from cliptex.shards.json_files import (
    caption_texts,
    check_name,
    read_coco_captions,
    read_karpathy,
)
from cliptex.shards.tables import (
    GUESS,
    Lines,
    Row,
    TableForm,
    columns,
    columns_said,
    delimited,
    lines_of,
)

_SIDE = {*TEXT_EXTENSIONS, JSON_EXTENSION}  # beside an image
_UNFIT = re.compile(r"[.\\]")  # what keys of shards may not hold
KARPATHY_SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
LINES, DELIMITED = (".jsonl", ".ndjson"), (".csv", ".tsv", ".txt", ".token")

_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_REMEDY = "put it right, or leave such rows out (skip_bad_rows)"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image to import.

    Attributes:
        name: how the source calls it, relative to the folder of images.
        captions: as the source gives them, uncleaned.
        meta: kept in the sample's KEY.json.
        key: its key, where the source has keys of its own; "" where its number is its key.
    """

    name: str
    captions: tuple[str, ...]
    meta: dict[str, Any]
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What an import shall bring over.

    Attributes:
        items: the images, in order.
        problems: one line for each input that was left out already.
        notes: what else the user should know, one line each.
        listed: names of all images that the captions file knows, also those of other splits.
    """

    items: list[Item]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    listed: frozenset[str] = frozenset()


def folder_source(captions_file: AnyPath, form: TableForm, *, skip_bad_rows: bool) -> Source:
    """The rows of a table of captions, in its order.

    Rows with the same image become one item with several captions.
    """
    table = read_table(captions_file, form, skip_bad_rows=skip_bad_rows)
    grouped: dict[str, list[str]] = {}
    for name, captions in table.rows:
        grouped.setdefault(name, []).extend(captions)
    bare = sum(not any(text.strip() for text in captions) for _, captions in table.rows)
    return Source(
        items=[_item(name, captions) for name, captions in grouped.items()],
        problems=table.bad,
        notes=(table.said, *([f"{bare:,} rows have no caption"] if bare else [])),
        listed=frozenset(grouped),
    )


def karpathy_source(path: AnyPath, images: AnyPath, split: str) -> Source:
    """The images of one split of a Karpathy JSON; "train" includes "restval"."""
    if split not in KARPATHY_SPLITS:
        raise ValueError(f"split must be one of {sorted(KARPATHY_SPLITS)}, not {split!r}")
    entries = read_karpathy(path)["images"]
    items = []
    for entry in entries:
        if entry["split"] in KARPATHY_SPLITS[split]:
            name, nested = entry["filename"], _nested(entry)
            captions = [sentence["raw"] for sentence in entry["sentences"]]
            items.append(_item(nested if (images / nested).is_file() else name, captions))
    if not items:
        found = sorted({entry["split"] for entry in entries})
        raise ValueError(f"{path}: no image of split {split!r}; the splits are {found}")
    listed = {name for entry in entries for name in (entry["filename"], _nested(entry))}
    return Source(items=items, listed=frozenset(listed))


def _nested(entry: dict[str, Any]) -> str:
    return f"{entry.get('filepath') or ''}/{entry['filename']}".lstrip("/")


def coco_source(path: AnyPath) -> Source:
    """The images of a COCO captions JSON by image id, captions by annotation id where all have one.

    Captions of images that the file does not list are counted.
    """
    content = read_coco_captions(path)
    images = sorted(content["images"], key=lambda entry: _order(entry["id"]))
    captions: dict[int | str, list[str]] = {_id(image["id"]): [] for image in images}
    if len(captions) < len(images):
        raise ValueError(f"{path}: an image id occurs as a number and as a text; use one form")
    notes = content["annotations"]
    if all(isinstance(note.get("id"), (int, str)) for note in notes):
        notes = sorted(notes, key=lambda note: _order(note["id"]))
    astray = [note for note in notes if _id(note["image_id"]) not in captions]
    for note in notes:
        captions.get(_id(note["image_id"]), []).append(note["caption"])
    said = (
        f"{len(astray):,} captions are of images that {path.name} does not list, such as image_id "
    )
    return Source(
        items=[
            _item(image["file_name"], captions[_id(image["id"])], image_id=image["id"])
            for image in images
        ],
        notes=(f"{said}{astray[0]['image_id']!r}",) if astray else (),
        listed=frozenset(image["file_name"] for image in images),
    )


def _id(value: int | str) -> int | str:
    """An id such that 7 and "7" are one."""
    plain = isinstance(value, str) and len(value) < 19 and value.isascii() and value.isdecimal()
    return int(value) if plain and str(int(value)) == value else value


def _order(value: int | str) -> tuple[int, int, str]:
    """Numbers, also those in texts, by size; then other texts."""
    if isinstance(value, int) or (value.isascii() and value.isdecimal() and len(value) < 19):
        return (0, int(value), str(value))
    return (1, 0, value)


def files_source(folder: AnyPath, caption_key: str | None) -> Source:
    """The samples of one subfolder of img2dataset's "files" output, by the images' names.

    Captions come from the same members in the same order as those of shards (docs/shards.md). A
    dot or a backslash in a stem becomes "_" in its key.
    """
    items: dict[str, Item] = {}
    problems: list[str] = []
    others: list[str] = []
    for stem, files in _by_stem(folder).items():
        images = [suffix for suffix in files if suffix.lower() in IMAGE_EXTENSIONS]
        images.sort(key=lambda suffix: IMAGE_EXTENSIONS.index(suffix.lower()))
        others += [p.name for suffix, p in files.items() if suffix not in (*images, *_SIDE)]
        if not images:
            sides = [files[suffix].name for suffix in files if suffix in _SIDE]
            if sides:
                problems.append(f"{sides[0]}: no image of this name that is read")
            continue
        name = files[images[0]].name
        problems += [f"{files[suffix].name}: {name} is taken" for suffix in images[1:]]
        try:
            item = _files_item(name, _UNFIT.sub("_", stem), files, caption_key)
            if item.key in items:
                raise ValueError(f"{items[item.key].name} has the same key")
        except ValueError as error:
            problems.append(f"{name}: {error}")
        else:
            items[item.key] = item
    notes = ()
    if others:
        notes = (f"{len(others):,} files of {folder} belong to no image, such as {others[0]}",)
    return Source(items=list(items.values()), problems=tuple(problems), notes=notes)


def _by_stem(folder: AnyPath) -> dict[str, dict[str, AnyPath]]:
    """The files of a folder by stem and suffix (without its dot)."""
    stems: dict[str, dict[str, AnyPath]] = {}
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        stem, _, suffix = path.name.rpartition(".")
        stems.setdefault(stem or path.name, {})[suffix] = path
    return stems


def _files_item(name: str, key: str, files: dict[str, AnyPath], caption_key: str | None) -> Item:
    """One sample; ValueError says what is wrong with its name or its JSON."""
    try:
        check_name(name)
    except ValueError as error:
        raise ValueError("its name is not UTF-8") from error
    text = next((files[suffix] for suffix in TEXT_EXTENSIONS if suffix in files), None)
    side = files.get(JSON_EXTENSION)
    if caption_key and side is None:
        raise ValueError(f"no KEY.json, whose field {caption_key!r} is asked for")
    meta: dict[str, Any] = {}
    captions: list[str] = []
    if side is not None:
        try:
            data = read_bytes(side)
            if caption_key or text is None:
                captions = (json_captions(data, caption_key) or "").splitlines()
            meta = parse_json(data)
            if not isinstance(meta, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise ValueError(f"{side.name}: {error}") from error
    if text is not None and not caption_key:
        captions = [decode_caption(read_bytes(text))]
    return Item(name=name, captions=tuple(captions), meta=meta, key=key)


def _item(name: str, captions: Iterable[str], **meta: Any) -> Item:
    return Item(name=name, captions=tuple(captions), meta={"source": name, **meta})


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a table holds.

    Attributes:
        rows: an image's name and its captions, of some none, in the file's order.
        bad: one line for each row that was left out.
        said: how the file was read.
    """

    rows: list[tuple[str, list[str]]]
    bad: tuple[str, ...]
    said: str


def read_table(path: AnyPath, form: TableForm, *, skip_bad_rows: bool) -> Table:
    """Read a captions file in the form that its suffix says.

    Raises:
        ValueError: the file is none, or it can be read in two ways; the first row that does not
            fit, unless `skip_bad_rows`.
    """
    suffix = path.suffix.lower()
    if suffix not in (*LINES, *DELIMITED, ".json"):
        known = ", ".join((*DELIMITED, *LINES))
        raise ValueError(f"{path}: a captions file ends in {known} or .json")
    data = _as_utf8(path)
    if not data.removeprefix(b"\xef\xbb\xbf").strip():
        raise ValueError(f"{path}: no rows")
    if suffix in DELIMITED:
        rows, said = delimited(path, lines_of(data), form)
    else:
        rows, said = _objects(path, data, form, lines=suffix in LINES)
    found, bad = _checked(path, rows, skip_bad_rows)
    if not found:
        raise ValueError(f"{path}: no rows{' that fit, beginning with ' + bad[0] if bad else ''}")
    return Table(rows=found, bad=tuple(bad), said=f"{path.name}: {len(found):,} rows, {said}")


def _checked(
    path: AnyPath, rows: Iterable[Row], skip: bool
) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """The rows that fit, and a line for each of the others."""
    found: list[tuple[str, list[str]]] = []
    bad: list[str] = []
    for row in rows:
        problem = row.fault
        try:
            if not problem:
                found.append(_pair(row))
        except ValueError as error:
            problem = str(error)
        if problem:
            bad.append(f"{path}: {row.where}: {problem}")
            if not skip:
                raise ValueError(f"{bad[0]}; {_REMEDY}")
    return found, bad


def _pair(row: Row) -> tuple[str, list[str]]:
    try:
        name = check_name(row.name)
    except ValueError as error:
        raise ValueError(f"no image name: {error}") from error
    try:
        return name, caption_texts(row.captions)
    except ValueError as error:
        raise ValueError(f"the caption is {error}") from error


def _as_utf8(path: AnyPath) -> bytes:
    """The file's bytes in UTF-8; ValueError for damaged or unknown ones.

    UTF-16 and UTF-32 are told by their byte order mark, UTF-16 without one by its zero bytes, which
    UTF-8 has not.
    """
    data = read_bytes(path)
    encoding = next((code for mark, code in _MARKS.items() if data.startswith(mark)), "")
    in_high, in_low = b"\0" in data[1::2], b"\0" in data[::2]  # of little-endian UTF-16
    if not encoding and in_high != in_low:
        encoding = "utf-16-le" if in_high else "utf-16-be"
    try:
        data = data.decode(encoding).encode() if encoding else data
    except UnicodeError as error:
        raise ValueError(f"{path}: damaged {encoding.upper()} ({error}): save it again") from error
    if b"\0" in data:
        raise ValueError(
            f"{path}: contains zero bytes, so it is not text in UTF-8, UTF-16 or UTF-32 with a "
            "byte order mark: save it as UTF-8"
        )
    return data


def _objects(path: AnyPath, data: bytes, form: TableForm, *, lines: bool) -> tuple[list[Row], str]:
    """The rows of JSON lines, or of a JSON list."""
    if form.separator or form.quoting != GUESS:
        raise ValueError(f"{path}: JSON has no separator and no quoting to choose")
    if lines or _is_json_lines(data):
        entries, kind = _json_lines(lines_of(data)), "JSON lines"
    else:
        entries, kind = _json_list(path, data), "a JSON list"
    known = [value for _, value, fault in entries if not fault]
    if not known:
        raise ValueError(
            f"{path}: {entries[0][0]}: {entries[0][2]}" if entries else f"{path}: no rows"
        )
    names = list(dict.fromkeys(key for value in known for key in value))
    image, caption = (names[place] for place in columns(path, names, form))
    rows = [
        Row(where, fault=fault) if fault else Row(where, value.get(image), value.get(caption))
        for where, value, fault in entries
    ]
    return rows, f"{kind}, {columns_said(image, caption)}"


_Entry = tuple[str, Any, str]  # where it stands, its value, what is wrong with it


def _json_lines(lines: Lines) -> list[_Entry]:
    entries: list[_Entry] = []
    for number, line in enumerate(lines.texts):
        if line.strip():
            where = f"line {number + 1}"
            try:
                value = parse_json(line)
            except ValueError as error:
                entries.append((where, None, f"not valid JSON ({error})"))
                continue
            if isinstance(value, dict):
                value = {k: lines.mended(v, number, number) for k, v in value.items()}
            entries.append((where, value, _object_fault(value)))
    return entries


def _json_list(path: AnyPath, data: bytes) -> list[_Entry]:
    try:
        content = parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}): download or write it again") from error
    if not isinstance(content, list):
        raise ValueError(
            f"{path}: a captions file in JSON is a list of objects, one an image; a Karpathy or "
            "COCO JSON is imported as such"
        )
    return [(f"entry [{i}]", value, _object_fault(value)) for i, value in enumerate(content)]


def _object_fault(value: Any) -> str:
    return "" if isinstance(value, dict) else "not a JSON object"


def _is_json_lines(data: bytes) -> bool:
    """Whether the first of several lines is an object by itself."""
    lines = data.split(b"\n", 1)
    try:
        return len(lines) > 1 and isinstance(parse_json(lines[0]), dict) and bool(lines[1].strip())
    except ValueError:
        return False
