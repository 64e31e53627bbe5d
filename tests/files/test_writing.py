"""Whole or absent, on both sides."""

from __future__ import annotations

import errno
import hashlib
import tempfile
from pathlib import Path

import pytest
from upath import UPath

from cliptex.files import AtomicFile, sha256_file, walk, write_atomic
from cliptex.files.paths import as_path


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system's temporary folder of the test's own."""
    folder = tmp_path / "system-temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_written_replaced_and_hashed(tmp_path: Path, memory: UPath, temporary: Path) -> None:
    for root in (tmp_path / "out", memory):
        path = root / "sub" / "a.bin"
        write_atomic(path, b"one")
        write_atomic(path, b"two" * 1000)
        assert path.read_bytes() == b"two" * 1000
        assert sha256_file(path) == hashlib.sha256(b"two" * 1000).hexdigest()
        assert list(walk(root)) == ["sub/a.bin"]
    assert list(temporary.iterdir()) == []


def test_without_commit_nothing_changes(tmp_path: Path, memory: UPath, temporary: Path) -> None:
    for root in (tmp_path / "out", memory):
        write_atomic(root / "a", b"before")
        with pytest.raises(KeyboardInterrupt), AtomicFile(root / "a") as file:
            file.file.write(b"half")
            raise KeyboardInterrupt
        assert (root / "a").read_bytes() == b"before"
        assert list(walk(root)) == ["a"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]
    assert list(temporary.iterdir()) == []


def test_a_failing_put_names_the_file_and_leaves_nothing(
    memory: UPath, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "Access Denied")

    monkeypatch.setattr(type(memory.fs), "put_file", fail)
    with pytest.raises(OSError, match="memory://store/a could not be written: .*Access") as caught:
        write_atomic(memory / "a", b"x")
    assert caught.value.errno == errno.EACCES
    assert list(temporary.iterdir()) == []


def test_https_is_read_only() -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(OSError, match="https:// is read-only"):
        write_atomic(as_path("https://localhost/a"), b"x")
