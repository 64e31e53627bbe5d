"""The network: requests to remote file systems and to the Hugging Face Hub, and their faults.

A request that may succeed later is tried again a few times, then refused in one line.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

TRIES = 4
PAUSE = 1.0  # seconds before the second try; doubled before each next one
SILENCE = 20.0  # seconds in which a web server must connect, and then send something

_BUSY = (408, 425, 429)  # HTTP statuses below 500 that may pass
_PASSING = (errno.EIO, errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED)
_LASTING = ("TooManyRedirects", "InvalidURL", "InvalidUrlClientError")
_CLIENTS = (
    "aiohttp",
    "httpx",
    "httpx2",
    "httpcore",
    "requests",
    "urllib3",
    "botocore",
    "huggingface_hub",
)
OFFLINE = (
    "load it once where there is a network, bring that cache here (the folder that HF_HOME names) "
    "and set HF_HUB_OFFLINE=1"
)
_LOGGER = "huggingface_hub.utils._http"  # says two lines for each of five retries of each file

T = TypeVar("T")


def ask(path: object, request: Callable[[], T]) -> T:
    """The result of `request`, which reads or writes `path`; a local path is asked only once.

    Temporary faults (no connection, no answer in time, a body that breaks off, the HTTP
    statuses 408, 425, 429 and from 500 on) are tried again. Raises FileNotFoundError where there
    is no such file, OSError that says why where the network or the server gives nothing else,
    and whatever else the request raises.
    """
    if isinstance(path, Path):
        return request()
    pause = PAUSE
    for left in reversed(range(TRIES)):
        try:
            return request()
        except Exception as error:
            cause = _cause(error)
            if cause is None and isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"{path}: there is no such file or folder") from error
            if cause is None:
                raise
            passing, why = cause
            if not passing:
                raise OSError(f"{path}: {why}; check the address and who may read it") from error
            if not left:
                raise OSError(
                    f"{path}: no complete answer in {TRIES} tries ({why}); run the same command "
                    "later, or copy the files to this machine"
                ) from error
        time.sleep(pause)
        pause *= 2
    raise AssertionError("the last try returns or raises")


def network_fault(error: BaseException) -> str | None:
    """Message of an error that a network client raised, with the address; None for other errors.

    For requests of libraries, which do not go through `ask`.
    """
    if type(error).__module__.partition(".")[0] not in _CLIENTS:
        return None
    url = getattr(getattr(error, "_request", None), "url", "")
    address = f"{url}: " if url else ""
    return f"{address}{type(error).__name__}: {' '.join(str(error).split())}"


def unavailable(what: str, error: Exception, otherwise: str = "") -> ValueError:
    """The error to raise where a library could not download `what`: one line, with the remedy."""
    reason = " ".join((str(error).strip() or type(error).__name__).split())
    return ValueError(f"{what} could not be downloaded ({reason}): {OFFLINE}{otherwise}")


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


def _cause(error: BaseException) -> tuple[bool, str] | None:
    """Whether a fault of the network is temporary, and its text; None for any other error."""
    if isinstance(error, FileNotFoundError):
        # fsspec's web file system gives every failure that name
        return None if error.__cause__ is None else _cause(error.__cause__)
    status = getattr(error, "status", None) or _status_of_response(error)
    if status == 404:
        return None
    if isinstance(status, int) and status >= 400:
        return status >= 500 or status in _BUSY, f"HTTP status {status}"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TimeoutError):
        return True, f"no answer within {SILENCE:g} s"
    if isinstance(error, ConnectionError):
        return True, text
    module = type(error).__module__.partition(".")[0]
    if module in _CLIENTS:
        return type(error).__name__ not in _LASTING, f"{type(error).__name__}: {text}"
    return (True, text) if isinstance(error, OSError) and error.errno in _PASSING else None


def _status_of_response(error: BaseException) -> object:
    return getattr(getattr(error, "response", None), "status_code", None)
