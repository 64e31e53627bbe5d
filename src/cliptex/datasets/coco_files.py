"""The list of pictures in COCO's files of annotations, which all of them have."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def check_images(path: Path, images: list[dict[str, Any]]) -> None:
    """ValueError names an image of the file `path` whose id is taken, or that names no file.

    File names such as "./a.jpg" become "a.jpg", in place, so that they compare equal.
    """
    refuse_twice(path, images, "images")
    for image in images:
        if not isinstance(image["file_name"], str) or not image["file_name"]:
            raise ValueError(
                f"{path}: image {image['id']!r} has file_name {image['file_name']!r}, expected the "
                "name of its file"
            )
        image["file_name"] = str(Path(image["file_name"]))


def refuse_twice(path: Path, entries: list[dict[str, Any]], part: str) -> None:
    """ValueError names an id that several `entries` of the file's `part` have."""
    seen: set[Any] = set()
    for entry in entries:
        if entry["id"] in seen:
            raise ValueError(
                f"{path}: several {part} have id {entry['id']!r}: list each once, with an id of "
                "its own"
            )
        seen.add(entry["id"])


def require_numbers(path: Path, entries: list[dict[str, Any]], part: str, key: str) -> None:
    """ValueError names the first of the file's `part` whose id is no whole number, by its `key`."""
    for entry in entries:
        if not isinstance(entry["id"], int):
            raise ValueError(
                f"{path}: {part}: {entry[key]!r} has id {entry['id']!r}, expected a whole number: "
                "number them, and what refers to them in annotations"
            )
