"""The Hugging Face Hub: what is said while it does not answer, and when something cannot be had."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

OFFLINE = (
    "load it once where there is a network, bring that cache here (the folder that HF_HOME names) "
    "and set HF_HUB_OFFLINE=1"
)
_LOGGER = "huggingface_hub.utils._http"  # says two lines for each of five retries of each file


def unavailable(what: str, error: Exception, otherwise: str = "") -> ValueError:
    """What to raise when a library could not download `what`, with the remedy on one line."""
    reason = " ".join((str(error).strip() or type(error).__name__).split())
    return ValueError(f"{what} cannot be had ({reason}): {OFFLINE}{otherwise}")


@contextmanager
def asking_hub() -> Iterator[None]:
    """Say once, in one line, that the hub does not answer and is asked again."""
    said = False

    def once(record: logging.LogRecord) -> bool:
        nonlocal said
        first, said = not said, True
        record.msg, record.args = "the Hugging Face Hub does not answer; asking again ...", ()
        return first

    logger = logging.getLogger(_LOGGER)
    logger.addFilter(once)
    try:
        yield
    finally:
        logger.removeFilter(once)
