"""Files and folders, local or remote: paths, names, reading at random, writing whole."""

from cliptex.files.names import file_name
from cliptex.files.paths import AnyPath, Stamp, as_path, exists, is_local, own, stamp, walk
from cliptex.files.reading import OpenFiles, RandomFile, most_open, open_random
from cliptex.files.writing import AtomicFile, put, sha256_file, temporary_for, write_atomic

__all__ = [
    "AnyPath",
    "AtomicFile",
    "OpenFiles",
    "RandomFile",
    "Stamp",
    "as_path",
    "exists",
    "file_name",
    "is_local",
    "most_open",
    "open_random",
    "own",
    "put",
    "sha256_file",
    "stamp",
    "temporary_for",
    "walk",
    "write_atomic",
]
