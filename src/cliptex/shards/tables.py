"""Tables of captions (CSV, TSV, JSON lines, JSON lists): rows of an image's name and captions.

How a file is written is guessed by the rules below, and said; where two readings of a file differ,
nothing is guessed: an error names the field that decides.

Form: by the suffix. A .json is a list of objects, or one object a line.
Separator: the one of comma, tab, semicolon and "|" by which the header has both columns.
Columns: by their names in the header (`IMAGE_COLUMNS`, `CAPTION_COLUMNS`).
Quoting: "none" where no field begins with a quote; "standard" where every quoted field ends where
the field ends, and holds no line that is itself a row; "none" again where quotes open in text
separated by tabs or "|", but no field is quoted as a whole. Else it must be given.
No header: Flickr8k's `NAME#0<TAB>caption`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cliptex.files import AnyPath, parse_json, read_bytes
from cliptex.shards.json_files import caption_texts, check_name
from cliptex.shards.separated import delimited
from cliptex.shards.table_form import GUESS, Lines, Row, TableForm, columns, columns_said, lines_of

LINES, DELIMITED = (".jsonl", ".ndjson"), (".csv", ".tsv", ".txt", ".token")

_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_REMEDY = "put it right, or leave such rows out (skip_bad_rows)"


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
        raise ValueError(f"{path}: damaged {encoding.upper()} ({error}): save it anew") from error
    if b"\0" in data:
        raise ValueError(
            f"{path}: has zero bytes, so it is no text in UTF-8, UTF-16 or UTF-32 with a byte "
            "order mark: save it as UTF-8"
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
        raise ValueError(f"{path}: not valid JSON ({error}): get or write it again") from error
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
