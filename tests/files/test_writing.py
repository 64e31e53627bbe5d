"""Whole or absent, on both sides."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from upath import UPath

from cliptex.files import (
    AtomicFile,
    Claim,
    append_lines,
    new_folder,
    remove_abandoned,
    save_tensors,
    sha256_file,
    sweep,
    walk,
    write_atomic,
    writing,
)
from cliptex.files.paths import as_path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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


@pytest.mark.parametrize("when", ["write", "fsync"])
def test_full_disk__is_explained_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "fsync":
        monkeypatch.setattr(writing.os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "open", lambda path, _: _full(path, full))
    with pytest.raises(OSError, match="run the same command again") as caught:
        write_atomic(tmp_path / "x.tar", b"x")
    assert caught.value.errno == errno.ENOSPC
    assert tree(tmp_path) == {}


def _full(path: Path, full) -> io.BufferedWriter:
    class Full(io.BufferedWriter):
        write = full

    return Full(io.FileIO(path, "w"))


def test_abandoned_files_go_living_ones_stay(tmp_path: Path) -> None:
    dead = tmp_path / "sub" / ".0.tar.0123.cliptex-tmp"
    dead.parent.mkdir()
    dead.write_bytes(b"half")
    with AtomicFile(tmp_path / "sub" / "1.tar") as living:
        living.write(b"whole")
        assert remove_abandoned(tmp_path) == 1
        assert not dead.exists()
        living.commit()
    assert tree(tmp_path) == {os.path.join("sub", "1.tar"): b"whole"}


KILLED = """
import os, signal, sys
from upath import UPath
from cliptex.files import AtomicFile
file = AtomicFile(UPath("memory://store/big"))
file.write(b"half")
file.file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_remote_writer_left__goes_with_the_next(
    memory: UPath, temporary: Path
) -> None:
    command = [sys.executable, "-c", KILLED]
    subprocess.run(command, env={**os.environ, "TMPDIR": str(temporary)}, check=False)
    (left,) = temporary.iterdir()
    with AtomicFile(memory / "a") as living:
        assert not left.exists()
        write_atomic(memory / "b", b"beside it")
        living.write(b"whole")
        living.commit()
    assert (memory / "a").read_bytes() == b"whole"
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_modes_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "bytes", b"x")
        write_atomic(tmp_path / "new", b"x", exclusive=True)
        save_tensors({"a": torch.ones(2)}, tmp_path / "tensors", {"format": "pt"})
        append_lines(tmp_path / "lines", b"x\n")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("[a-z]*[a-z]")}
    del modes["system-temporary"]
    assert modes == dict.fromkeys(("bytes", "new", "tensors", "lines"), 0o666 & ~umask)
    assert load_file(tmp_path / "tensors")["a"].tolist() == [1, 1]


FULL = """
import resource, sys
from pathlib import Path
import torch
from cliptex.files import AtomicFile, append_lines, save_tensors, write_atomic
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # a write goes as far, then fails: EFBIG
def stream(path, data):
    with AtomicFile(path) as file:
        file.file.write(data)
        file.commit()
calls = {
    "lines": lambda p: append_lines(p, b"y" * 200 + b"\\n"),
    "bytes": lambda p: write_atomic(p, b"y" * 20000),
    "stream": lambda p: stream(p, b"y" * 20000),
    "tensors": lambda p: save_tensors({"a": torch.ones(5000)}, p),
}
for name, call in calls.items():
    try:
        call(folder / name)
    except OSError as error:
        print(name, str(folder / name) in str(error))
"""


def test_a_disk_that_fills_up__leaves_every_file_as_it_was(tmp_path: Path) -> None:
    names = ("lines", "bytes", "stream", "tensors")
    for name in names:
        (tmp_path / name).write_bytes(b"before\n")
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"{name} True" for name in names]
    left = {name: data for name, data in tree(tmp_path).items() if data}
    assert left == dict.fromkeys(names, b"before\n")


@pytest.mark.parametrize("remote", [False, True])
def test_exclusive__keeps_what_was_there(tmp_path: Path, memory: UPath, remote: bool) -> None:
    path = (memory if remote else tmp_path) / "manifest.json"
    write_atomic(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        write_atomic(path, b"second", exclusive=True)
    assert path.read_bytes() == b"first"
    assert list(walk(path.parent)) == ["manifest.json"]


def test_exclusive__of_two_remote_writers_the_loser_learns_it(memory: UPath, monkeypatch) -> None:
    """Between this writer's look and its reading back, another one puts its own bytes."""
    path, real = memory / "manifest.json", writing.put

    def overtaken(local: Path, target: UPath) -> None:
        real(local, target)
        target.write_bytes(b"the other's")

    monkeypatch.setattr(writing, "put", overtaken)
    with pytest.raises(FileExistsError):
        write_atomic(path, b"mine", exclusive=True)
    assert path.read_bytes() == b"the other's"


def test_new_folder__replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "made" / "target"
    for text in ("first", "second"):
        with new_folder(target) as folder:
            (folder / text).write_text(text)
    assert tree(tmp_path) == {os.path.join("made", "target", "second"): b"second"}


def test_new_folder__an_error_leaves_things_as_they_were(tmp_path: Path) -> None:
    target = tmp_path / "made" / "target"
    with pytest.raises(KeyError), new_folder(target):
        raise KeyError
    assert not target.parent.exists()
    with pytest.raises(OSError, match="no space left while writing .*target"), new_folder(target):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_new_folder__what_a_kill_leaves_is_swept(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from cliptex.files import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    folder = tmp_path / "new"
    subprocess.run([sys.executable, "-c", code, str(folder / "target")])
    (folder / f".older.{'0' * 32}.tmp").mkdir()  # as earlier versions named them
    assert len(list(folder.iterdir())) == 2
    assert remove_abandoned(folder) == 0  # of files alone
    sweep(folder)
    assert list(folder.iterdir()) == []


def test_claim__one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".work.lock"
    with Claim.take(path) or pytest.fail("nobody has it") as claim:
        assert Claim.take(path) is None
        claim.release()
        assert not path.exists()
        other = Claim.take(path)
        assert other is not None
    assert path.exists()  # leaving the block took nothing from the other holder
    other.release()
