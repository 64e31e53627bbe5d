"""How a table of captions is written: its columns, its separator and quoting; rows of any form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ftfy

from cliptex.files import AnyPath

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
