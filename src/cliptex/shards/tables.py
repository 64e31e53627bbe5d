"""Tables of captions (CSV, TSV, JSON lines, JSON lists): their form, and separated text as rows.

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

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import ftfy

from cliptex.files import AnyPath
from cliptex.shards.images import IMAGE_SUFFIXES

IMAGE_COLUMNS = (
    *("image", "file", "filename", "file_name", "path", "filepath", "file_path"),
    *("image_path", "image_name", "image_file", "img", "url"),
    *("image_filename", "img_path", "img_name", "img_file"),
)
CAPTION_COLUMNS = (
    *("caption", "captions", "text", "texts", "sentence", "description", "alt_text", "alt"),
    *("title", "raw", "comment"),
)
SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "|"}
GUESS = "guess"
QUOTINGS = (GUESS, "standard", "backslash", "none")
_TOKEN = re.compile(r"(.+)#\d+\t(.*)")  # a row of Flickr8k.token.txt and of Flickr30k's .token
_UNQUOTED = ("\t", "|")  # separators of tables that often quote nothing
_FIELD_LIMIT = 2**31 - 1  # of characters; csv's own is 131,072


@dataclass(frozen=True, kw_only=True)
class TableForm:
    """How a table is written; what is left empty, or "guess", is guessed.

    Attributes:
        image_column, caption_column: names in the header, or keys of the JSON objects.
        separator: one character, or "comma", "tab", "semicolon".
        quoting: "standard" (RFC 4180: a quote in a quoted field is doubled), "backslash" (it
            follows a backslash), or "none" (quotes are text; of a line with more fields than the
            header the rest is the caption where that is the last column, but not by tabs).
    """

    image_column: str = ""
    caption_column: str = ""
    separator: str = ""
    quoting: str = GUESS

    def __post_init__(self) -> None:
        if self.quoting not in QUOTINGS:
            raise ValueError(f"quoting {self.quoting!r}: must be one of {', '.join(QUOTINGS)}")
        if self.separator and len(self.character) != 1:
            raise ValueError(
                f"separator {self.separator!r}: must be one character, or comma, tab or semicolon"
            )

    @property
    def character(self) -> str:
        """The separator itself."""
        named = {name: character for character, name in SEPARATORS.items()} | {"\\t": "\t"}
        return named.get(self.separator, self.separator)


class Row(NamedTuple):
    """A row as it stands in the file; `fault` says why it is none."""

    where: str
    name: Any = None
    captions: Any = None
    fault: str = ""


@dataclass
class Lines:
    """The physical lines of a text, and which of them (from 0) are not UTF-8."""

    texts: list[str] = field(default_factory=list)
    foreign: set[int] = field(default_factory=set)

    def mended(self, value: Any, first: int, last: int) -> Any:
        """A value of lines `first` to `last`, its encoding mended where one of them is foreign."""
        if not self.foreign or self.foreign.isdisjoint(range(first, last + 1)):
            return value
        if isinstance(value, list):
            return [self.mended(one, first, last) for one in value]
        return ftfy.fix_text(value) if isinstance(value, str) else value


def lines_of(data: bytes) -> Lines:
    """Line by line, so that one line in another encoding does not spoil the others."""
    lines = Lines()
    for number, line in enumerate(data.splitlines(keepends=True)):
        try:
            lines.texts.append(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            lines.texts.append(line.decode("latin-1"))
            lines.foreign.add(number)
    return lines


def columns(path: AnyPath, names: Sequence[str], form: TableForm) -> tuple[int, int]:
    """The places of the image's and the caption's column; ValueError if they are not told."""
    places = []
    for wanted, known in (
        (form.image_column, IMAGE_COLUMNS),
        (form.caption_column, CAPTION_COLUMNS),
    ):
        place = find_column(path, names, wanted, known)
        if place is None:
            looked = repr(wanted) if wanted else f"any of {', '.join(known)}"
            raise ValueError(
                f"{path}: no column {looked} among {list(names)}; name it explicitly "
                "(image_column, caption_column), or write a first line with the columns' names"
            )
        places.append(place)
    if places[0] == places[1]:
        raise ValueError(f"{path}: column {names[places[0]]!r} cannot be image and caption at once")
    return places[0], places[1]


def find_column(
    path: AnyPath, names: Sequence[str], wanted: str, known: Sequence[str]
) -> int | None:
    """Where the column `wanted`, or else the first of `known`, stands in the header, if it does."""
    plain = [_plain(name) for name in names]
    exact = [place for place, name in enumerate(names) if wanted and name.strip() == wanted.strip()]
    for name in (wanted,) if wanted else known:
        found = exact or [place for place, other in enumerate(plain) if other == _plain(name)]
        if len(found) > 1:
            raise ValueError(
                f"{path}: {len(found)} columns are called {name!r}; rename all but one"
            )
        if found:
            return found[0]
    return None


def _plain(name: str) -> str:
    """A column's name without case, spaces and dashes: "Image Path" is image_path."""
    return re.sub(r'[\s_"-]+', "", name).lower()


def columns_said(image: str, caption: str) -> str:
    return f"images in column {image.strip()!r}, captions in {caption.strip()!r}"


def delimited(path: AnyPath, lines: Lines, form: TableForm) -> tuple[Iterator[Row], str]:
    """The rows of separated text."""
    head = next(number for number, line in enumerate(lines.texts) if line.strip())
    header = lines.texts[head].rstrip("\r\n")
    if form == TableForm() and _TOKEN.fullmatch(header):
        return _token_rows(lines), "Flickr's NAME#number, tab, caption"
    separator, names = _separator(path, header, form)
    table = _Delimited(path, lines, head, separator, names, *columns(path, names, form))
    quoting = table.quoting() if form.quoting == GUESS else form.quoting
    rows = table.plain_rows() if quoting == "none" else table.quoted_rows(quoting)
    parts = [f"separated by {SEPARATORS.get(separator, repr(separator))}"]
    parts.append("quotes are text" if quoting == "none" else f"{quoting} quoting")
    parts.append(columns_said(names[table.image], names[table.caption]))
    longer = table.longer_lines() if quoting == "none" else 0
    if longer:
        parts.append(f"the caption is the rest of the line in {longer:,} rows with more fields")
    if lines.foreign:
        parts.append(f"{len(lines.foreign):,} lines are not UTF-8 and read as Latin-1")
    return rows, ", ".join(parts)


def _token_rows(lines: Lines) -> Iterator[Row]:
    for number, line in enumerate(lines.texts):
        match = _TOKEN.fullmatch(line.rstrip("\r\n"))
        where = f"line {number + 1}"
        if match:
            yield Row(where, *lines.mended(list(match.groups()), number, number))
        elif line.strip():
            yield Row(where, fault="not NAME#number, tab, caption, as the first line is")


def _separator(path: AnyPath, header: str, form: TableForm) -> tuple[str, list[str]]:
    """The separator, and the header's names by it."""
    tried = {}
    for separator in (form.character,) if form.separator else SEPARATORS:
        with _long_fields():
            cells = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        tried[separator] = [cell.strip() for cell in cells]
    fit = [
        separator
        for separator, names in tried.items()
        if find_column(path, names, form.image_column, IMAGE_COLUMNS) is not None
        and find_column(path, names, form.caption_column, CAPTION_COLUMNS) is not None
    ]
    if len(fit) > 1:
        raise ValueError(
            f"{path}: the header has both columns by {fit}; say which is the separator"
        )
    chosen = fit[0] if fit else max(tried, key=lambda separator: len(tried[separator]))
    return chosen, tried[chosen]


class _Cells(NamedTuple):
    """The cells of lines `first` to `last` (from 0); `fault` says where the quotes are wrong."""

    first: int
    last: int
    cells: list[str]
    fault: str = ""


@dataclass
class _Delimited:
    """Separated text below a header."""

    path: AnyPath
    lines: Lines
    head: int
    separator: str
    names: list[str]
    image: int
    caption: int
    _read: dict[str, list[_Cells]] = field(default_factory=dict)

    def quoting(self) -> str:
        """Guess it by the rules above; ValueError where two readings differ."""
        body = enumerate(self._body(), start=self.head + 1)
        quoted = {number: line for number, line in body if self._opens.search(line)}
        header = self.lines.texts[self.head]
        if not quoted or (self.separator == "|" and header.count("|") == header.count("| ")):
            return "none"  # Flickr30k's results.csv, by "| ", quotes nothing
        read = self._parsed("standard")
        faulty = next((cells for cells in read if cells.fault), None)
        escaped = next((number for number, line in quoted.items() if '\\"' in line), None)
        if escaped is not None and (faulty or self._fits("backslash")):
            self._undecided(escaped, "a quote follows a backslash")
        if faulty:
            if self.separator in _UNQUOTED and not any(map(self._is_quoted, quoted.values())):
                return "none"
            self._undecided(faulty.first, f"a quoted field is damaged ({faulty.fault}), or none is")
        for cells in read:
            if cells.last > cells.first and self._seem_rows(cells.first, cells.last):
                self._undecided(cells.first, "a quoted field goes on over lines that seem rows")
        return "standard"

    def plain_rows(self) -> Iterator[Row]:
        """Each line a row, quotes as text."""
        splits = self._splits
        for number, line in enumerate(self._body(), start=self.head + 1):
            if line.strip():
                cells = line.rstrip("\r\n").split(self.separator, splits)
                yield self._row(_Cells(number, number, cells))

    def quoted_rows(self, quoting: str) -> Iterator[Row]:
        """Rows as `csv` reads them, strictly."""
        for cells in self._parsed(quoting):
            if "end of data" in cells.fault:
                raise ValueError(
                    f"{self.path}: line {cells.first + 1}: a quote opens here and never closes; "
                    "close it, or read quotes as text (quoting none)"
                )
            if len(cells.cells) > 1 or "".join(cells.cells).strip() or cells.fault:
                yield self._row(cells)

    def longer_lines(self) -> int:
        """How many lines have more separators than the header."""
        most = len(self.names) - 1
        if self._splits < 0:
            return 0
        return sum(line.count(self.separator) > most for line in self._body())

    def _body(self) -> list[str]:
        return self.lines.texts[self.head + 1 :]

    @property
    def _splits(self) -> int:
        """How often a line is split at most; -1 for all: tabs are rarely a caption's own."""
        last = self.caption == len(self.names) - 1
        return len(self.names) - 1 if last and self.separator != "\t" else -1

    @cached_property
    def _opens(self) -> re.Pattern[str]:
        return re.compile(rf'(?:^|{re.escape(self.separator)}) *"')

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        mark = re.escape(self.separator)
        return re.compile(rf'(?:^|{mark}) *"(?:[^"]|"")*" *(?:{mark}|$)')

    def _is_quoted(self, line: str) -> bool:
        """Whether a field of the line is in quotes as a whole, or has a doubled quote in it."""
        return '""' in line or self._whole.search(line.rstrip("\r\n")) is not None

    def _fits(self, quoting: str) -> bool:
        need = len(self.names)
        return all(not row.fault and len(row.cells) in (0, need) for row in self._parsed(quoting))

    def _seem_rows(self, first: int, last: int) -> bool:
        """Whether all of these lines seem rows, or one between the first and the last does."""
        inner = range(first + 1, last)
        return any(map(self._is_row, inner)) or (
            self._is_row(first)
            and self._is_row(last)
            and not any(self.lines.texts[line].strip() for line in inner)
        )

    def _is_row(self, line: int) -> bool:
        """Whether a line has enough fields, and an image's name among them where rows have one."""
        cells = self.lines.texts[line].rstrip("\r\n").split(self.separator)
        if len(cells) < len(self.names):
            return False
        return _has_suffix(cells[self.image]) or not self._names_have_suffixes

    @cached_property
    def _names_have_suffixes(self) -> bool:
        first = next(self.plain_rows(), None)
        return first is not None and isinstance(first.name, str) and _has_suffix(first.name)

    def _parsed(self, quoting: str) -> list[_Cells]:
        """The rows as `csv` has them, read once."""
        if quoting not in self._read:
            self._read[quoting] = list(self._strictly(quoting))
        return self._read[quoting]

    def _strictly(self, quoting: str) -> Iterator[_Cells]:
        style: dict[str, Any] = {"delimiter": self.separator, "skipinitialspace": True}
        if quoting == "backslash":
            style |= {"escapechar": "\\", "doublequote": False}
        start = self.head + 1
        with _long_fields():
            reader = csv.reader(self._body(), strict=True, **style)
            while True:
                first, cells, fault = start + reader.line_num, [], ""
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    fault = str(error)
                yield _Cells(first, start + reader.line_num - 1, cells, fault)

    def _row(self, cells: _Cells) -> Row:
        where = f"line {cells.first + 1}"
        have, need = len(cells.cells), len(self.names)
        if cells.fault:
            return Row(where, fault=f"{cells.fault}: a quote within a quoted field is doubled")
        if have != need:
            more = f", such as {cells.cells[-1].strip()[:40]!r}" if have > need else ""
            return Row(where, fault=f"{have} fields{more}, where the header has {need}")
        pair = [cells.cells[self.image], cells.cells[self.caption]]
        return Row(where, *self.lines.mended(pair, cells.first, cells.last))

    def _undecided(self, line: int, why: str) -> None:
        raise ValueError(
            f"{self.path}: line {line + 1}: {why}, so that the file can be read in two ways; say "
            "which (quoting: standard, backslash or none)"
        )


def _has_suffix(name: str) -> bool:
    return name.strip().strip('"').lower().endswith(IMAGE_SUFFIXES)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let csv read fields of any length, then put its limit back, which the process shares."""
    before = csv.field_size_limit(min(_FIELD_LIMIT, sys.maxsize))
    try:
        yield
    finally:
        csv.field_size_limit(before)
