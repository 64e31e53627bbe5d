"""Hostile tables of captions; what is right is told by `csv` and `json`."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
import tarfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from cliptex.shards import importers
from cliptex.shards.tables import TableForm
from hostile_cases import Case, damage, disturb, short, write

Row = tuple[str, str]
Captions = dict[str, list[str]]

IMAGES = ("a.jpg", "b c.jpg", "sub/d.png", "IMG_1.JPG", "e.f.jpg", "g,h.jpg", "ü.jpg")
CAPTIONS = (
    "a dog",
    "a man, a plan, a canal",
    'he said "hello" to her',
    "it's a cat; it sleeps",
    "ein Mädchen läuft über die Straße",
    "naïve café 日本語",
    "  two  spaces ",
    "nan",
    "false",
    "100 % + more",
    "| a pipe",
    "#1 hash",
)


@lru_cache
def picture(format: str, shade: int) -> bytes:
    """A small image of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (shade % 256, 40, 90)).save(out, format)
    return out.getvalue()


def make_images(folder: Path, names: tuple[str, ...] = IMAGES) -> Path:
    for number, name in enumerate(names):
        format = "PNG" if name.endswith(".png") else "JPEG"
        write(folder / name, picture(format, 20 * number))
    return folder


def imported(out: Path) -> Captions:
    """The captions that an import wrote by the name of their source, read by tarfile and json."""
    found: Captions = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # pyright: ignore
        for name, data in files.items():
            if name.endswith(".json"):
                lines = files[name.removesuffix(".json") + ".txt"].decode().splitlines()
                found.setdefault(json.loads(data)["source"], []).extend(lines)
    return found


def one_line(text: str) -> str:
    return " ".join(text.split())


def compare(
    expected: Captions, found: Captions, said: str, *, damaged: Captions | None = None
) -> str:
    """What is lost without a word, changed or invented.

    damaged: where rows are damaged, which is to be said, what the table held before.
    """
    for name, captions in found.items():
        known = expected.get(name, []) + (damaged or {}).get(name, [])
        extra = [c for c in captions if c not in known]
        if extra:
            return f"{short(name)} got the caption {short(extra[0])!r}, has {short(known)}"
    for name, captions in expected.items():
        if sorted(found.get(name, [])) != sorted(captions) and name not in said:
            return f"{name} has {short(captions)}, got {short(found.get(name))}, not a word of it"
    told = damaged is None or any(word in said for word in ("row", "line"))
    return "" if told else "a bad row, not said"


def _grouped(rows: list[Row]) -> Captions:
    grouped: Captions = {}
    for name, caption in rows:
        if name.strip():
            grouped.setdefault(name.strip(), [])
            if one_line(caption):
                grouped[name.strip()].append(one_line(caption))
    return {name: captions for name, captions in grouped.items() if captions}


def case(rng: random.Random, number: int, folder: Path) -> Case:
    images = make_images(folder / "images")
    rows = [(rng.choice(IMAGES), rng.choice(CAPTIONS)) for _ in range(rng.randrange(3, 9))]
    maker = MAKERS[number % len(MAKERS)]
    name, data, expected, how, whole = maker(rng, rows)
    path = write(folder / name, data)
    out = folder / "out"
    column = "caption" if rng.random() < 0.2 and b"caption" in data[:40] else ""

    def run() -> tuple[str, Captions]:
        report = importers.import_folder(path, images, out, form=TableForm(caption_column=column))
        return str(report), imported(out)

    def judge(answer: tuple[str, Captions], said: str) -> str:
        before = None if whole else _grouped(rows)
        return compare(expected, answer[1], said + answer[0], damaged=before)

    rest = f"; rows {rows!r}, caption_column={column!r}"
    return Case(f"{how} as {name}{rest}"[:600], run, judge, (name,), whole and bool(expected))


Made = tuple[str, bytes, Captions, str, bool]
Maker = Callable[[random.Random, list[Row]], Made]


def _table(
    rows: list[Row], *, header: tuple[str, ...] | None = ("image", "caption"), **options
) -> str:
    out = io.StringIO()
    writer = csv.writer(out, **{"lineterminator": "\n", **options})
    writer.writerows([header, *rows] if header else rows)
    return out.getvalue()


def _read(text: str, delimiter: str) -> tuple[Captions, bool]:
    """The rows of a table that has a header, by csv alone, and whether every row fits."""
    csv.field_size_limit(sys.maxsize)
    fits, whole = [], True
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = next(reader, [])
        columns = [name.strip().lower() for name in header]
        if "image" not in columns or "caption" not in columns:
            return {}, False
        for row in reader:
            if len(row) == len(header):
                fits.append((row[columns.index("image")], row[columns.index("caption")]))
                whole = whole and bool(fits[-1][0].strip())
            elif row:
                whole = False
    except csv.Error:
        whole = False
    return _grouped(fits), whole


def _delimited(suffix: str, delimiter: str, encoding: str = "utf-8", **options) -> Maker:
    def make(rng: random.Random, rows: list[Row]) -> Made:
        if encoding in ("latin-1", "cp1252"):
            rows = [(name, caption.replace("日本語", "")) for name, caption in rows]
        text = _table(rows, delimiter=delimiter, **options)
        end = options.get("lineterminator", "\n")
        how = f"{delimiter!r} between fields, {encoding}, {end!r} at line ends"
        return f"table.{suffix}", text.encode(encoding), _grouped(rows), how, True

    return make


def _headed(header: tuple[str, ...]) -> Maker:
    def make(rng: random.Random, rows: list[Row]) -> Made:
        wide = [(*row, *["x"] * (len(header) - 2)) for row in rows]
        text = _table(wide, header=header)  # pyright: ignore
        return "table.csv", text.encode(), _grouped(rows), f"columns {header}", True

    return make


def _unquoted(rng: random.Random, rows: list[Row]) -> Made:
    """Commas without quotes: one text to a reader of two columns, a row too long to csv."""
    rows = [("a.jpg", "a man, a plan"), *((n, c) for n, c in rows if "," not in n and '"' not in c)]
    text = "image,caption\n" + "".join(f"{name},{caption}\n" for name, caption in rows)
    return "table.csv", text.encode(), _grouped(rows), "unquoted commas in captions", True


def _unbalanced(suffix: str, delimiter: str) -> Maker:
    def make(rng: random.Random, rows: list[Row]) -> Made:
        rows = [(n, c) for n, c in rows if delimiter not in n + c and '"' not in c]
        rows = [("a.jpg", '"a quote that never ends'), *rows, ("b c.jpg", "the last")]
        text = f"image{delimiter}caption\n"
        text += "".join(f"{name}{delimiter}{caption}\n" for name, caption in rows)
        how = f"a quote without its end, {delimiter!r} between fields"
        return f"table.{suffix}", text.encode(), _grouped(rows), how, True

    return make


def _flickr30k(rng: random.Random, rows: list[Row]) -> Made:
    rows = [(n, c.replace("|", "/")) for n, c in rows]
    text = "image_name| comment_number| comment\n"
    text += "".join(f"{n}| {i % 5}| {c}\n" for i, (n, c) in enumerate(rows))
    return "results.csv", text.encode(), _grouped(rows), "Flickr30k's results.csv", True


def _flickr8k(rng: random.Random, rows: list[Row]) -> Made:
    text = "".join(f"{n}#{i % 5}\t{c}\n" for i, (n, c) in enumerate(rows))
    return "Flickr8k.token.txt", text.encode(), _grouped(rows), "Flickr8k's token.txt", True


def _headless(rng: random.Random, rows: list[Row]) -> Made:
    text = _table(rows, header=None)
    return "table.csv", text.encode(), _grouped(rows), "no header", False


def _long(rng: random.Random, rows: list[Row]) -> Made:
    rows = [("a.jpg", "word " * 40_000), *rows]
    return (
        "table.csv",
        _table(rows).encode(),
        _grouped(rows),
        "a caption of 200,000 characters",
        True,
    )


def _broken_lines(rng: random.Random, rows: list[Row]) -> Made:
    rows = [
        ("a.jpg", rng.choice(("two\nlines", "two\r\nlines", "a\u2028b", "a\x0bb", "a\x85b"))),
        *rows,
    ]
    return (
        "table.csv",
        _table(rows).encode(),
        _grouped(rows),
        "line breaks within a quoted field",
        True,
    )


def _gaps(rng: random.Random, rows: list[Row]) -> Made:
    bad = rng.choice(("a.jpg\n", ",a caption without image\n", "a.jpg,x,y,z\n", "\n", " , \n"))
    text = _table(rows) + bad + "b c.jpg,the last\n"
    expected, whole = _read(text, ",")
    return "table.csv", text.encode(), expected, f"the row {bad!r}", whole


def _missing(rng: random.Random, rows: list[Row]) -> Made:
    rows = [("none.jpg", "of no image"), *rows, ("../a.jpg", "outside")]
    return "table.csv", _table(rows).encode(), _grouped(rows), "images that are not there", True


def _nothing(rng: random.Random, rows: list[Row]) -> Made:
    data = rng.choice((b"", b"\n", b"image,caption\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\0" * 100))
    suffix = rng.choice(("csv", "tsv", "txt", "jsonl", "json"))
    return f"table.{suffix}", data, {}, f"{data[:20]!r}", False


def _damaged(rng: random.Random, rows: list[Row]) -> Made:
    rows = [(n, c) for n, c in rows if (n + c).isascii()] or [("a.jpg", "a dog")]
    suffix, delimiter = rng.choice((("csv", ","), ("tsv", "\t")))
    data, how = damage(rng, _table(rows, delimiter=delimiter).encode(), ascii_only=True)
    expected, whole = _read(data.decode(), delimiter)
    return f"table.{suffix}", data, expected, f"a table of {rows!r}, {how}", whole


def _objects(rng: random.Random, rows: list[Row]) -> list[dict[str, Any]]:
    listed = [
        {"image": n, "caption": [c, c + " again"] if rng.random() < 0.3 else c} for n, c in rows
    ]
    return listed


def _of_objects(objects: list[Any]) -> tuple[Captions, bool]:
    """What JSON rows hold, and whether each of them is sound."""
    rows, whole = [], True
    for row in objects:
        name = row.get("image") if isinstance(row, dict) else None
        captions = row.get("caption") if isinstance(row, dict) else None
        captions = captions if isinstance(captions, list) else [captions]
        texts = [c for c in captions if isinstance(c, str)]
        if not isinstance(name, str) or not name.strip() or len(texts) < len(captions):
            whole = False
        else:
            rows += [(name, text) for text in texts]
    return _grouped(rows), whole


def _json_lines(change: bool, array: bool) -> Maker:
    def make(rng: random.Random, rows: list[Row]) -> Made:
        objects, how = _objects(rng, rows), "sound rows"
        if change:
            objects, how = disturb(rng, objects)
        escaped = rng.random() < 0.5 or change
        lines = [json.dumps(row, ensure_ascii=escaped) for row in objects]
        text = json.dumps(objects, ensure_ascii=escaped) if array else "\n".join(lines) + "\n"
        expected, whole = _of_objects(objects)
        name = "table.json" if array else "table.jsonl"
        return (
            name,
            text.encode(rng.choice(("utf-8", "utf-8-sig"))),
            expected,
            f"JSON, {how}",
            whole,
        )

    return make


def _json_damaged(rng: random.Random, rows: list[Row]) -> Made:
    rows = [(n, c) for n, c in rows if (n + c).isascii()] or [("a.jpg", "a dog")]
    text = "".join(json.dumps({"image": n, "caption": c}) + "\n" for n, c in rows)
    data, how = damage(rng, text.encode(), ascii_only=True)
    objects: list[Any] = []
    for line in data.decode().split("\n"):
        try:
            objects += [json.loads(line)] if line.strip() else []
        except ValueError:
            objects.append(None)
    expected, whole = _of_objects(objects)
    return "table.jsonl", data, expected, f"JSON lines of {rows!r}, {how}", whole


def _nested(rng: random.Random, rows: list[Row]) -> Made:
    array = rng.random() < 0.5
    text = "[" * 100_000 if array else '{"image": "a.jpg", "caption": ' + "[" * 100_000
    return f"table.json{'' if array else 'l'}", text.encode(), {}, "100,000 open brackets", False


MAKERS: tuple[Maker, ...] = (
    _delimited("csv", ","),
    _delimited("csv", "\t"),
    _delimited("csv", ";"),
    _delimited("csv", "|"),
    _delimited("tsv", "\t"),
    _delimited("txt", "\t"),
    _delimited("csv", ",", "utf-16"),
    _delimited("tsv", "\t", "utf-16-le"),
    _delimited("csv", ",", "utf-8-sig", lineterminator="\r\n"),
    _delimited("csv", ",", "cp1252"),
    _delimited("csv", ",", "utf-8", lineterminator="\r"),
    _delimited("csv", ",", quoting=csv.QUOTE_ALL),
    _delimited("CSV", ",", quoting=csv.QUOTE_ALL, lineterminator="\r\n"),
    _headed(("Image Path", "Caption")),
    _headed(("filepath", "title", "extra")),
    _headed(("image", "caption", "image")),
    _headed((" IMAGE ", " CAPTION ", "")),
    _headed(("photo", "words")),
    _unquoted,
    _unbalanced("tsv", "\t"),
    _unbalanced("csv", ","),
    _flickr30k,
    _flickr8k,
    _headless,
    _long,
    _broken_lines,
    _gaps,
    _missing,
    _nothing,
    _nested,
    *[_damaged] * 8,
    _json_lines(False, False),
    _json_lines(False, True),
    *[_json_lines(True, False)] * 6,
    *[_json_lines(True, True)] * 3,
    *[_json_damaged] * 3,
)
