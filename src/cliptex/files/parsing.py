"""JSON of any origin: what is wrong with it is one line."""

from __future__ import annotations

import json
from typing import Any

from cliptex.files.paths import AnyPath, read_bytes


def parse_json(data: bytes | str) -> Any:
    """The value in `data`; ValueError says, in one line and without a name, what is wrong."""
    if not data.strip():
        raise ValueError("it is empty")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def load_json(path: AnyPath, what: str = "a file of this project") -> dict[str, Any]:
    """The object in a JSON file; ValueError names a file that is not `what` it should be."""
    try:
        content = parse_json(read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path}: not {what}: no whole JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not {what}: no JSON object")
    return content
