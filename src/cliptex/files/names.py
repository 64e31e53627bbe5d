"""Names of files and folders that are made from any text, such as a model's."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

LONGEST = 210
"""Bytes of a name without its ending. File systems take 255; a file while it is being written
(`AtomicFile`) needs 30 more than its own, and endings have up to 5."""

DIGITS = 16  # hexadecimal, of the hash of what was cut


def file_name(text: str, *, safe: str = "") -> str:
    """`text` as a name of ASCII alone, percent-encoded but for `safe`; other texts have others.

    One of more than `LONGEST` bytes is cut, and ends in a hash of the whole text.
    """
    name = quote(text, safe=safe)
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
    return f"{name[: LONGEST - DIGITS - 1]}-{digest}"
