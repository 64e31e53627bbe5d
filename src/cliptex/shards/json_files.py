"""Other people's JSON: what may be wrong in it, said in one line; COCO's and Karpathy's files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cliptex.files import AnyPath, parse_json, read_bytes

KARPATHY_FORM = '{"images": [{"filename", "split", "sentences": [{"raw"}]}]}'
COCO_FORM = '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'
_IDS = ("id", "imgid", "cocoid")  # what the entries of these files are known by
_NAMES = ("filename", "file_name")
_SHOWN = 60  # characters of a wrong value


def read_json(path: AnyPath, form: str, keys: Sequence[str]) -> dict[str, Any]:
    """A JSON object that has `keys`; ValueError names `path` and the remedy or the `form`."""
    try:
        content = parse_json(read_bytes(path))
    except ValueError as error:
        raise ValueError(
            f"{path} is not complete JSON ({error}): was its download cut off? Download it again"
        ) from error
    absent = [key for key in keys if not isinstance(content, dict) or key not in content]
    if absent:
        raise ValueError(f"{path} has no key {', '.join(map(repr, absent))}; expected {form}")
    return content


def check_entries(
    path: AnyPath, entries: Any, part: str, keys: Sequence[str], *, remedy: str = ""
) -> None:
    """ValueError names the first object of the list `part` of a JSON that lacks one of `keys`."""
    if not isinstance(entries, list):
        raise ValueError(f"{path}: {part} is {shown(entries)}, expected a list")
    wanted = set(keys)
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not wanted <= entry.keys():
            absent = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            raise ValueError(
                f"{path}: {part}[{number}] has no {', '.join(map(repr, absent))}"
                f"{known_as(entry)}: every one of {part} needs {', '.join(keys)}{remedy}"
            )


def known_as(entry: Any) -> str:
    """The id of an entry, in brackets for messages; "" where it has none."""
    ids = [f" ({key} {entry[key]!r})" for key in _IDS if isinstance(entry, dict) and key in entry]
    return ids[0] if ids else ""


def shown(value: object) -> str:
    """A value as messages show it."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def check_text(value: object) -> str:
    """`value` itself; ValueError, which goes on a sentence, where it is no text to store.

    JSON may hold half of a surrogate pair ("\\ud83d"), which no encoding has.
    """
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)}, expected a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{shown(value)}, which holds half a character") from error
    return value


def check_name(value: object) -> str:
    """A file's name without the spaces around it; ValueError, which goes on a sentence, if none."""
    name = check_text(value).strip()
    if not name or "\0" in name:
        raise ValueError(f"{shown(value)}, expected the name of a file")
    return name


def caption_texts(value: object) -> list[str]:
    """The captions that a field holds: a text, a list of texts, or null or NaN for none.

    ValueError, which goes on a sentence, for anything else.
    """
    if isinstance(value, list):
        return [check_text(one) for one in value if not _is_null(one)]
    return [] if _is_null(value) else [check_text(value)]


def _is_null(value: object) -> bool:
    return value is None or value != value  # NaN, which pandas has for null


def read_karpathy(path: AnyPath) -> dict[str, Any]:
    """The Karpathy JSON at `path`, its images with `sentences` each, of some none.

    ValueError names one that is a folder, damaged or another, and the entry that does not fit.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the JSON in it, such as dataset_flickr30k.json")
    content = read_json(path, KARPATHY_FORM, ("images",))
    _check_field(path, content, "dataset", "the file", optional=True)
    if content["images"] == []:
        raise ValueError(f"{path} lists no image: download it again")
    check_entries(path, content["images"], "images", ("filename", "split"))
    for number, entry in enumerate(content["images"]):
        image = f"images[{number}]"
        for key in ("filename", "split", "filepath"):
            _check_field(path, entry, key, image, optional=key == "filepath")
        entry["sentences"] = entry.get("sentences") or []
        check_entries(path, entry["sentences"], f"{image}.sentences", ("raw",))
        for place, sentence in enumerate(entry["sentences"]):
            _check_field(path, sentence, "raw", f"{image}.sentences[{place}]")
    return content


def _check_field(
    path: AnyPath, entry: dict[str, Any], key: str, what: str, *, optional: bool = False
) -> None:
    """ValueError names an `entry` of the JSON, `what`, whose `key` is no text, or no name."""
    value = entry.get(key)
    if optional and value is None:
        return
    try:
        check_name(value) if key in _NAMES else check_text(value)
    except ValueError as error:
        raise ValueError(
            f"{path}: {what} has {key!r} {error}{known_as(entry)}: put it right, or take it out"
        ) from error


def read_coco_captions(path: AnyPath) -> dict[str, Any]:
    """The COCO captions JSON at `path`.

    ValueError names one that is damaged or another, and the entry without an id, a name or a
    text, or with the id of another image.
    """
    content = read_json(path, COCO_FORM, ("images", "annotations"))
    check_images(path, content["images"])
    notes = content["annotations"]
    remedy = " (COCO's captions are in captions_*.json)"
    check_entries(path, notes, "annotations", ("image_id", "caption"), remedy=remedy)
    for number, note in enumerate(notes):
        check_id(path, note, "image_id", f"annotations[{number}]")
        _check_field(path, note, "caption", f"annotations[{number}]")
    return content


def check_images(path: AnyPath, images: Any) -> None:
    """ValueError names an image of COCO's file `path` whose id is taken, or that names no file."""
    check_entries(path, images, "images", ("id", "file_name"))
    refuse_twice(path, images, "images")
    for number, image in enumerate(images):
        _check_field(path, image, "file_name", f"images[{number}]")


def refuse_twice(path: AnyPath, entries: list[dict[str, Any]], part: str) -> None:
    """ValueError names an id that several `entries` of the file's `part` have, or that is none."""
    seen: dict[int | str, int] = {}
    for number, entry in enumerate(entries):
        check_id(path, entry, "id", f"{part}[{number}]")
        first = seen.setdefault(entry["id"], number)
        if first != number:
            raise ValueError(
                f"{path}: several {part} have id {entry['id']!r}: list each once, with an id of "
                f"its own ({part}[{first}] and {part}[{number}])"
            )


def check_id(path: AnyPath, entry: dict[str, Any], key: str, what: str) -> None:
    """ValueError names an `entry` of the JSON, `what`, whose `key` is no number and no text."""
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(
            f"{path}: {what} has {key!r} {shown(value)}, expected a whole number or a text: "
            "number the entries, and what refers to them"
        )


def require_numbers(path: AnyPath, entries: list[dict[str, Any]], part: str, key: str) -> None:
    """ValueError names the first of the file's `part` whose id is no whole number, by its `key`."""
    for entry in entries:
        if not isinstance(entry["id"], int):
            raise ValueError(
                f"{path}: {part}: {entry[key]!r} has id {entry['id']!r}, expected a whole number: "
                "number them, and what refers to them in annotations"
            )
