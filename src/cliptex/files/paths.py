"""Paths on any file system: text to path, files below a folder, version of a file, names.

A local path is a plain `pathlib.Path`; s3://, hf://, https://, memory:// and whatever else fsspec
knows are `upath.UPath`, which has the same methods.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import quote

from cliptex.files import network
from cliptex.files.network import ask
from cliptex.machine import MissingPackage

if TYPE_CHECKING:
    from upath import UPath

AnyPath: TypeAlias = "Path | UPath"

LOCAL = ("file", "local")
READ_ONLY = ("http", "https")
_WEB = tuple(f"{protocol}://" for protocol in READ_ONLY)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)")
_COLLAPSED = re.compile(r"([a-z][a-z0-9+.-]+):/")
# What fsspec needs beside itself, by protocol: its own messages do not always name the package.
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "webdav": "webdav4",
}
# Where the file systems that fsspec knows say which version of a file they hold; the first wins.
_VERSION_FIELDS = (
    *("ETag", "etag", "e_tag", "md5Hash", "content_md5", "blob_id", "checksum"),
    *("mtime", "LastModified", "last_modified", "Last-Modified", "modified", "updated", "created"),
)
LONGEST = 210
"""Bytes of a name without its ending. File systems take 255; a file while it is being written
(`AtomicFile`) needs 30 more than its own, and endings have up to 5."""

DIGITS = 16  # hexadecimal, of the hash of what was cut


@dataclass(frozen=True)
class Stamp:
    """Which version of a file: its size in bytes, and its tag or time of change as text.

    `version` is "" on a file system that tells neither.
    """

    size: int
    version: str


def as_path(text: str | AnyPath) -> AnyPath:
    """A path from text: local ones (also file://) become a `Path`, other URLs a `UPath`.

    Raises:
        ValueError: fsspec knows no such protocol, or a URL lost a slash by way of `Path`.
        MissingPackage: the protocol needs a package that is not installed; names it.
    """
    if not isinstance(text, (str, Path)):
        return Path(text.path) if text.protocol in LOCAL else text
    if isinstance(text, Path):
        _refuse_collapsed(text)
        return text
    match = _URL.match(text)
    if match is None:
        return Path(text)
    protocol, chained = match[1].lower(), match[2] == "::"
    if protocol in LOCAL and not chained:
        from fsspec.implementations.local import LocalFileSystem

        return Path(LocalFileSystem._strip_protocol(text))
    return _remote(text, protocol)


def _remote(text: str, protocol: str) -> UPath:
    from fsspec.registry import known_implementations, registry
    from upath import UPath

    if protocol not in known_implementations and protocol not in registry:
        raise ValueError(f"{text}: {protocol}:// is no file system that fsspec knows")
    try:
        path = UPath(text, **(_patience() if text.lower().startswith(_WEB) else {}))
        _ = path.fs  # imports the package
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        wanted = "'cliptex[s3]'" if package == "s3fs" else package
        remedy = f"pip install {wanted}" if package else str(error)
        needed = f"the Python package {package}" if package else "a package that is not installed"
        raise MissingPackage(f"{text}: {protocol}:// needs {needed}: {remedy}") from error
    return path


def _patience() -> dict[str, Any]:
    """Options of fsspec's web file system, which by itself waits for minutes without a word."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=network.SILENCE, sock_read=network.SILENCE)
    return {"client_kwargs": {"timeout": timeout}}


def _refuse_collapsed(path: Path) -> None:
    match = _COLLAPSED.match(str(path))
    if match is None or path.exists():
        return
    from fsspec.registry import known_implementations

    if match[1] in known_implementations:
        raise ValueError(
            f"{path}: pathlib.Path has taken a slash from a URL; give the URL as text, "
            f"{match[1]}://..."
        )


def own(path: AnyPath) -> AnyPath:
    """The path with a file system of this process: after a fork, connections are not shared."""
    if isinstance(path, Path) or path.fs._pid == os.getpid():
        return path
    return copy(path)  # without the file system, which comes anew when it is asked for


def is_local(path: AnyPath) -> bool:
    """Whether the path lies on a file system of the machine."""
    return isinstance(path, Path)


def walk(root: AnyPath) -> dict[str, Stamp | None]:
    """All files below a folder, by path relative to it with forward slashes; sorted.

    Hidden files are left out, links to folders are not followed. A remote folder is listed with
    one recursive `find`, afresh; where its listing tells no sizes (https), values are None. Raises
    OSError where a remote folder cannot be listed (see `ask`).
    """
    found = _walk_local(root) if isinstance(root, Path) else _walk_remote(root)
    return dict(sorted(found.items()))


def _walk_local(root: Path) -> dict[str, Stamp | None]:
    found: dict[str, Stamp | None] = {}
    base = str(root)
    for folder, _, names in os.walk(base):
        inner = os.path.relpath(folder, base).replace(os.sep, "/")
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(path):
                found[name if inner == "." else f"{inner}/{name}"] = _local_stamp(os.stat(path))
    return found


def _walk_remote(root: UPath) -> dict[str, Stamp | None]:
    base = root.path.rstrip("/")
    _forget(root, base)
    found: dict[str, Stamp | None] = {}
    for name, info in _listing(root, base).items():
        relative = name.removeprefix(base).removeprefix("/")
        if name.startswith(base + "/") and not relative.rpartition("/")[2].startswith("."):
            found[relative] = _remote_stamp(info) if info.get("size") is not None else None
    return found


def _forget(path: UPath, folder: str) -> None:
    """Have the next question about `folder` asked anew; hf:// asks the hub which folder it is."""
    ask(path, lambda: path.fs.invalidate_cache(folder))


def _listing(root: UPath, base: str) -> dict[str, Any]:
    """All files below a remote folder by their whole names.

    On the web page by page: fsspec's own walk leaves out, without a word, what it cannot list.
    """
    if root.protocol not in READ_ONLY:
        return ask(root, lambda: cast(dict[str, Any], root.fs.find(base, detail=True)))
    files: dict[str, Any] = {}
    folders, known = [root.path], {base}
    while folders:
        folder = folders.pop()
        try:
            found = ask(folder, lambda folder=folder: root.fs.ls(folder, detail=True))
        except FileNotFoundError:
            if folder == root.path:
                raise
            continue  # a page may link to what is not there
        for info in found:
            name = info["name"].rstrip("/")
            if info["type"] != "directory":
                files[name] = info
            elif name.startswith(f"{base}/") and name not in known:
                known.add(name)
                folders.append(info["name"])
    return files


def stamp(path: AnyPath) -> Stamp:
    """The version of a file as it is now; FileNotFoundError where there is none."""
    if isinstance(path, Path):
        return _local_stamp(path.stat())
    _forget(path, path.parent.path)
    return _remote_stamp(ask(path, lambda: path.fs.info(path.path)))


def descriptor_stamp(descriptor: int) -> Stamp:
    """The version of an open local file."""
    return _local_stamp(os.fstat(descriptor))


def _local_stamp(stat: os.stat_result) -> Stamp:
    return Stamp(stat.st_size, str(stat.st_mtime_ns))


def _remote_stamp(info: Mapping[str, Any]) -> Stamp:
    size = info.get("size")
    if size is None:
        raise ValueError(
            f"{info.get('name')}: the server does not tell the size of the file, without which "
            "it cannot be read at random; copy it to a folder or an object store"
        )
    lfs = info.get("lfs")  # of hf://: the content's sha256
    if isinstance(lfs, Mapping) and lfs.get("sha256"):
        return Stamp(int(size), str(lfs["sha256"]))
    version = next((info[name] for name in _VERSION_FIELDS if info.get(name)), "")
    if isinstance(version, datetime):  # some file systems list seconds and tell the date of one
        version = version.timestamp()
    return Stamp(int(size), str(version))


def exists(path: AnyPath) -> bool:
    """Whether a file is there now, whatever a listing kept from before says."""
    if isinstance(path, Path):
        return path.exists()
    _forget(path, path.parent.path)
    if path.protocol not in READ_ONLY:
        return ask(path, path.exists)
    try:  # fsspec's own question takes every fault for a no
        ask(path, lambda: path.fs.info(path.path))
    except FileNotFoundError:
        return False
    return True


def file_name(text: str, *, safe: str = "") -> str:
    """`text` as a name of ASCII alone, percent-encoded but for `safe`; other texts have others.

    One of more than `LONGEST` bytes is cut, and ends in a hash of the whole text.
    """
    name = quote(text, safe=safe)
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
    return f"{name[: LONGEST - DIGITS - 1]}-{digest}"
