"""For every test: no progress lines, one thread, a cache of its own, and no network."""

from __future__ import annotations

import io
import logging
import os
import socket
from collections.abc import Callable, Iterator

import pytest

# Before anything imports numpy or torch: they read these once.
os.environ["CLIPTEX_QUIET"] = "1"
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory):
    """Point XDG_CACHE_HOME at a temporary folder (child processes inherit it)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Refuse connections that leave this machine, so that no test can depend on a download."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address):
        remote = self.family in (socket.AF_INET, socket.AF_INET6)
        if remote and address[0] not in LOCAL_HOSTS:
            raise OSError(f"tests may not open a connection to {address}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """said() -> the lines said (not warned of) since the last call."""
    monkeypatch.setenv("CLIPTEX_QUIET", "0")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(lambda record: record.levelno < logging.WARNING)

    def lines() -> list[str]:
        found = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        return found

    logging.getLogger("cliptex").addHandler(handler)
    yield lines
    logging.getLogger("cliptex").removeHandler(handler)


@pytest.fixture
def memory() -> Iterator:
    """memory://store (a `upath.UPath`), emptied before and after."""
    from fsspec.implementations.memory import MemoryFileSystem
    from upath import UPath

    def empty() -> None:
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]

    empty()
    yield UPath("memory://store")
    empty()
