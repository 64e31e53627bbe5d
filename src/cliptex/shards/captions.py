"""Captions as web alt-text gives them, to the plain text the tokenizer sees."""

from __future__ import annotations

import re
from urllib.parse import unquote

import ftfy

_TAG = re.compile(r"</?[a-zA-Z!][^>]*>")
# Printable ASCII without % & + < > and white space: nothing below but lower-casing and
# collapsing can change such a caption, and ftfy costs twenty times as much.
_PLAIN = re.compile(r"[ !-$'-*,-;=?-~\t\n\r]*")


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
