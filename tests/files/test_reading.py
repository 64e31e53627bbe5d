"""Reading at random: the same bytes from both sides, and few requests."""

from __future__ import annotations

import os
import pickle
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from cliptex.files import OpenFiles, most_open, open_random, paths

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def requests(memory: UPath, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(start, end) of every range asked of the memory file system."""
    seen: list[tuple[int, int]] = []
    real = type(memory.fs).cat_file

    def cat_file(self, path, start=None, end=None, **kwargs):
        seen.append((start, end))
        return real(self, path, start=start, end=end, **kwargs)

    monkeypatch.setattr(type(memory.fs), "cat_file", cat_file)
    return seen


def test_any_range_from_both_sides(tmp_path: Path, memory: UPath) -> None:
    rng = np.random.default_rng(1)
    places = [(0, 0), (0, len(CONTENT)), (len(CONTENT) - 5, 50), (len(CONTENT) + 9, 4)]
    places += [(int(rng.integers(3_000_000)), int(rng.integers(200_000))) for _ in range(200)]
    for path in (tmp_path / "f", memory / "f"):
        path.write_bytes(CONTENT)
        file = open_random(path)
        assert file.stamp.size == len(CONTENT)
        for offset, size in places:
            assert file.read(offset, size) == CONTENT[offset : offset + size]


def test_a_walk_costs_few_requests_and_bounded_memory(memory: UPath, requests) -> None:
    path = memory / "f"
    path.write_bytes(CONTENT * 10)
    file = open_random(path)
    for offset in range(0, 29_990_000, 10_240):  # image and caption, with headers between
        assert len(file.read(offset + 512, 8000)) == 8000
        file.read(offset + 9216, 100)
    assert len(requests) < 15, "64 KiB ahead, doubled up to 4 MiB: of 5858 reads"
    assert max(end - start for start, end in requests) <= 4 * 2**20 + 8000
    kept = file._kept[1]  # type: ignore
    assert len(kept) <= 256 * 2**10, "little is kept of a file that was read to its end"


def test_a_small_file_is_one_request(memory: UPath, requests) -> None:
    path = memory / "f"
    path.write_bytes(CONTENT[:60_000])
    file = open_random(path)
    for offset in range(0, 60_000, 1000):
        assert file.read(offset, 1000) == CONTENT[offset : offset + 1000]
    assert requests == [(0, 60_000)]


def test_reads_here_and_there_fetch_little_more(memory: UPath, requests) -> None:
    path = memory / "f"
    path.write_bytes(CONTENT * 10)
    file = open_random(path)
    for offset in (20_000_000, 5_000_000, 28_000_000, 100):
        file.read(offset, 8000)
        file.read(offset + 8192, 100)  # its caption: from the same request
    assert [end - start for start, end in requests] == [8000 + 64 * 1024] * 4


def test_a_server_that_ignores_ranges_is_noticed(memory: UPath, monkeypatch) -> None:
    path = memory / "f"
    path.write_bytes(CONTENT)
    whole = lambda self, path, start=None, end=None: CONTENT  # noqa: E731
    monkeypatch.setattr(type(memory.fs), "cat_file", whole)
    with pytest.raises(ValueError, match="memory://store/f: .* does not answer range requests"):
        open_random(path).read(10, 10)


def test_a_missing_file(tmp_path: Path, memory: UPath) -> None:
    for path in (tmp_path / "f", memory / "f"):
        with pytest.raises(FileNotFoundError):
            open_random(path)


def test_threads_share_a_remote_file(memory: UPath) -> None:
    path = memory / "f"
    path.write_bytes(CONTENT)
    file = open_random(path)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(300):
            offset, size = int(rng.integers(2_900_000)), int(rng.integers(90_000))
            if file.read(offset, size) != CONTENT[offset : offset + size]:
                wrong.append(offset)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forked_process_takes_a_file_system_of_its_own(memory: UPath, monkeypatch) -> None:
    path = memory / "f"
    path.write_bytes(CONTENT)
    file = open_random(path)
    before = file._path  # type: ignore
    monkeypatch.setattr(paths.os, "getpid", lambda: -1)
    assert file.read(5, 5) == CONTENT[5:10]
    assert file._path is not before and file._path == before  # type: ignore


def test_most_open(tmp_path: Path, memory: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed, most in ((1024, 128), (20_000, 1000), (resource.RLIM_INFINITY, 1000), (4, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        assert most_open(tmp_path) == most
        assert most_open(memory) == 64


def test_open_files_are_few_and_pickled_closed(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode())
    files = OpenFiles(2)
    before = len(os.listdir("/proc/self/fd"))
    for path in [*paths, *paths]:
        held = files.get(path.name, lambda path=path: open_random(path))
        assert held.read(0, 9) == path.name.encode()
    del held
    assert len(os.listdir("/proc/self/fd")) - before == 2
    assert pickle.loads(pickle.dumps(files)).get("x", lambda: open_random(paths[3])).read(0, 1)
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before
