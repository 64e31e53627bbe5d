"""Other systems, by taking away what they lack, in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cliptex import machine
from cliptex.shards.write import ShardWriter

EVERYTHING = """
import importlib, pkgutil, cliptex
for module in pkgutil.walk_packages(cliptex.__path__, "cliptex."):
    if module.name != "cliptex.__main__":
        importlib.import_module(module.name)
import sys
sys.platform = "darwin"  # before, Python's own modules would look for files of macOS
"""
# What Python has on Linux and not on macOS.
MACOS = """
import multiprocessing, os, pathlib, select, signal
for name in dir(os):
    if name.startswith(("sched_", "posix_fa", "O_DIRECT", "O_TMPFILE", "memfd_", "MFD_", "eventfd",
                        "EFD_", "copy_file_range", "setns", "unshare", "getrandom", "GRND_",
                        "pidfd_", "splice", "SPLICE_", "getxattr", "setxattr", "listxattr",
                        "removexattr", "getresuid", "setresuid")):
        delattr(os, name)
del select.epoll
multiprocessing.set_start_method("spawn")
real = pathlib.Path.exists
pathlib.Path.exists = lambda path, **how: not str(path).startswith("/proc") and real(path, **how)
"""
# Beyond these, what Windows lacks.
WINDOWS = """
import multiprocessing, os, signal, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("fork", "geteuid", "getuid", "kill", "pread", "sched_getaffinity", "statvfs", "uname"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1"):
    delattr(signal, name)
def context(method=None):
    raise ValueError("cannot find context for 'fork'")
multiprocessing.get_context = context
"""
WITHOUT_LINKS = """
import errno, os
def link(*args, **kwargs):
    raise OSError(errno.ENOTSUP, "Operation not supported")
os.link = link
"""


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"CLIPTEX_QUIET": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("platforms")
    Image.new("RGB", (16, 12), (9, 99, 199)).save(folder / "a.png")
    with ShardWriter(folder / "pairs", prefix="x") as writer:
        writer.add("k", (folder / "a.png").read_bytes(), "png", "text")
    return folder / "pairs"


@pytest.mark.parametrize(
    ("expert", "imports"),
    [
        ("sobel-edges", ""),
        pytest.param("playroom:depth", EVERYTHING, marks=pytest.mark.slow),  # 10 s of imports
    ],
)
def test_labelling_without_what_only_linux_has(
    expert: str, imports: str, pairs: Path, tmp_path: Path
) -> None:
    commands = [
        ["label", "run", "--data", str(pairs), "--out", str(tmp_path), "--expert", expert],
        ["label", "status", str(tmp_path), "--data", str(pairs)],
    ]
    code = f"""{MACOS}{WITHOUT_LINKS}{imports}
import sys
from cliptex.cli import main
for command in {commands}:
    assert main(command) == 0, command
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "1 shards done, 0 done before: 1 ok" in done.stdout
    assert not [path.name for path in tmp_path.rglob("*") if path.name.endswith("-tmp")]


def test_one_module_asks_what_systems_have_in_different_forms() -> None:
    package = Path(machine.__file__).parent
    asking = re.compile(r"sched_getaffinity|cpu_count|^ *import (resource|fcntl)|[\"']/proc", re.M)
    found = {path.name for path in package.rglob("*.py") if asking.search(path.read_text("utf-8"))}
    assert found == {"machine.py"}


def test_exclusive_files_without_links(tmp_path: Path) -> None:
    code = f"""{WITHOUT_LINKS}
import sys
from pathlib import Path
from cliptex.files import write_atomic
path = Path(sys.argv[1])
write_atomic(path, b"first", exclusive=True)
try:
    write_atomic(path, b"second", exclusive=True)
except FileExistsError:
    print(path.read_bytes(), sorted(path.parent.iterdir()) == [path])
"""
    assert run_python(code, str(tmp_path / "f")).stdout == "b'first' True\n"


def test_windows_is_told_to_use_wsl() -> None:
    code = f"import asyncio\n{WINDOWS}\nfrom cliptex.cli import main\n"
    code += "sys.platform = 'win32'\nsys.exit(main(['demo']))"
    done = run_python(code)
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[-1] == "error: CLIPTeX runs on Linux and macOS; on Windows use WSL"
    )
