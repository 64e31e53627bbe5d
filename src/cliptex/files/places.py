"""Folders: whether one can be made where it is wanted, and folders that are whole or absent."""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from cliptex.files.paths import AnyPath
from cliptex.files.writing import sync

# Of `new_folder`, and of AtomicFile (`cliptex.files.writing`) in this version and before.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16,32}\.(cliptex-)?tmp")


def check_can_make(folder: AnyPath, what: str) -> None:
    """OSError in one line where the local `folder` neither is one nor can be made; writes nothing.

    `what` says in the message what the folder is for.
    """
    if not isinstance(folder, Path):
        return
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except OSError as error:
        raise OSError(f"{folder}: {what} cannot be made: {error.strerror}") from error
    if not nearest.is_dir():
        name = "it is" if nearest == folder else f"{nearest} is"
        raise NotADirectoryError(
            f"{folder}: {what} cannot be made: {name} a file; give another path"
        )
    try:
        TemporaryFile(dir=nearest).close()
    except OSError as error:  # it names the temporary file
        raise OSError(
            error.errno,
            f"{what} cannot be written in {nearest}: {error.strerror}; give another path",
            str(folder),
        ) from error


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder to fill, which replaces `target` when the block ends without an error.

    With an error nothing is left, nor any folder above `target` that was made for it.
    """
    made = [parent for parent in target.absolute().parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.iterdir():
            sync(path)
        sync(temporary)
        if target.exists():
            remove_whole(target)
        temporary.rename(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # somebody else has put something there
                parent.rmdir()
        raise


def remove_whole(path: Path) -> None:
    """Remove a file, or a folder at once: what a kill leaves of it has a temporary name."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    rest = path if _TEMPORARY.fullmatch(path.name) else path.rename(_beside(path))
    shutil.rmtree(rest)


def sweep(folder: Path) -> None:
    """Remove the half-written files and folders in `folder`; nobody may be writing there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name):
            remove_whole(path)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
