"""Captions as shards and web alt-text give them, to the plain text the tokenizer sees."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

import ftfy

from cliptex.files import parse_json

_TAG = re.compile(r"</?[a-zA-Z!][^>]*>")
# Printable ASCII without % & + < > and white space: nothing below but lower-casing and
# collapsing can change such a caption, and ftfy costs twenty times as much.
_PLAIN = re.compile(r"[ !-$'-*,-;=?-~\t\n\r]*")


# Fields of a KEY.json that hold its caption, where no other is named; the first of this order.
CAPTION_FIELDS = ("caption", "captions", "text")


class CaptionError(ValueError):
    """A sample whose caption cannot be read; the message names file, key and remedy."""


def json_captions(data: bytes, field: str | None) -> str | None:
    """The captions in a KEY.json, uncleaned and one a line; None where it has none.

    field: the field that holds one caption or a list; by default the first of `CAPTION_FIELDS`
    that is there. A field that is null holds none.

    Raises:
        ValueError: it is no JSON object, it lacks `field`, or what the field holds is no text.
    """
    try:
        content = parse_json(data)
    except ValueError as error:
        raise ValueError(f"not complete JSON ({error})") from None
    if not isinstance(content, dict):
        kind = "null" if content is None else type(content).__name__
        raise ValueError(f"a JSON {kind}, not an object")
    if field is not None and field not in content:
        raise ValueError(f"no field {field!r}; it has {', '.join(map(repr, content)) or 'none'}")
    known = CAPTION_FIELDS if field is None else (field,)
    name = next((name for name in known if name in content), None)
    if name is None or content[name] is None:
        return None
    captions = content[name] if isinstance(content[name], list) else [content[name]]
    for caption in captions:
        if not isinstance(caption, str):
            raise ValueError(
                f"its field {name!r} holds {json.dumps(caption)[:40]}, which is not text"
            )
        try:
            caption.encode()
        except UnicodeEncodeError:
            raise ValueError(f"its field {name!r} has half of a surrogate pair") from None
    return "\n".join(" ".join(caption.splitlines()) for caption in captions)


def decode_caption(data: bytes) -> str:
    """A caption file's bytes as text: UTF-8, else Latin-1 mended by ftfy. Never raises."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return ftfy.fix_text(data.decode("latin-1"))


def clean_caption(text: str) -> str:
    """Clean one caption as the authors' library does; line breaks become spaces.

    URL-unquote, "+" to space, strip HTML tags, mend encodings (ftfy), collapse white space,
    lower-case (corenet, data/datasets/utils/text.py). Repeated until nothing changes, so that a
    cleaned caption is a fixed point and may be stored and cleaned again.
    """
    if _PLAIN.fullmatch(text):
        return " ".join(text.lower().split())
    for _ in range(len(text) + 8):  # each level of quoting removed makes the text shorter
        cleaned = _clean_once(text)
        if cleaned == text:
            break
        text = cleaned
    return text


def clean_captions(text: str) -> str:
    """Clean a caption file that holds one caption per line; empty lines are dropped."""
    lines = (clean_caption(line) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _clean_once(text: str) -> str:
    text = unquote(text).replace("+", " ")
    text = _TAG.sub(" ", text)
    text = ftfy.fix_text(text)
    return " ".join(text.lower().split())
