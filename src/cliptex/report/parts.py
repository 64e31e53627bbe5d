"""What a run folder holds beside its results: pictures, logs, configurations, times."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cliptex.files import load_json

MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Pictures in rows and columns; each picture is a data URI."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One stage of the run that made the results; seconds are None where it has not ended."""

    name: str
    seconds: float | None
    attempts: int
    config: Mapping[str, object]


def read_panels(folder: Path) -> list[Panel]:
    """All panels of `folder`/*.json, by file name.

    A file is {"title": str, "columns": [str, ...], "rows": [[picture file, ...], ...]}, with
    pictures relative to it, and may have a "note". Raises ValueError naming the file and key.
    """
    panels = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = load_json(path)
            columns = tuple(str(column) for column in content["columns"])
            rows = tuple(tuple(_data_uri(path.parent / f) for f in row) for row in content["rows"])
            title, note = str(content["title"]), str(content.get("note", ""))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f'{path}: a panel is {{"title", "columns", "rows"}}: {error!r}'
            ) from error
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"{path}: every row of 'rows' needs {len(columns)} pictures")
        panels.append(Panel(title=title, note=note, columns=columns, rows=rows))
    return panels


def find_logs(folders: Sequence[Path]) -> dict[str, Path]:
    """`log.jsonl` of every training in or below `folders`, named by its folder."""
    return _of_trainings(folders, "log.jsonl")


def read_steps(folders: Sequence[Path]) -> dict[str, int]:
    """Training -> the steps that its config.yaml asks for, of every training as in `find_logs`."""
    found = {}
    for name, path in _of_trainings(folders, "config.yaml").items():
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a readable YAML file: {error}") from error
        steps = content.get("steps") if isinstance(content, dict) else None
        if isinstance(steps, int):
            found[name] = steps
    return found


def _of_trainings(folders: Sequence[Path], file: str) -> dict[str, Path]:
    """`file` in each of `folders` and up to two below, by the folder that holds it."""
    found = {}
    for folder in folders:
        for path in sorted(p for depth in ("", "*/", "*/*/") for p in folder.glob(depth + file)):
            parts = path.parent.relative_to(folder).parts
            name = "/".join(parts if len(folders) == 1 and parts else (folder.name, *parts))
            found[name] = path
    return found


def read_stages(folder: Path) -> list[StageRecord]:
    """The stages of `folder` in the order in which they ended; unfinished ones come last."""
    found: list[tuple[float, StageRecord]] = []
    for path in folder.glob("*/stage.json"):
        started = load_json(path)
        done_path = path.with_name("done.json")
        done = load_json(done_path) if done_path.exists() else {}
        record = StageRecord(
            name=path.parent.name,
            seconds=done.get("seconds"),
            attempts=started.get("attempts", 1),
            config=started.get("config", {}),
        )
        found.append((done_path.stat().st_mtime if done else float("inf"), record))
    return [record for _, record in sorted(found, key=lambda pair: pair[0])]


def read_environment(folder: Path) -> Mapping[str, object]:
    """`environment.json` of the run, or of the first training in it; empty where there is none."""
    for path in [folder / "environment.json", *sorted(folder.glob("*/environment.json"))]:
        if path.exists():
            return load_json(path)
    return {}


def _data_uri(path: Path) -> str:
    media = MEDIA.get(path.suffix.lower())
    if media is None:
        raise ValueError(f"{path}: pictures of a panel are {sorted(MEDIA)}")
    return f"data:{media};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
