"""Files and folders, local or remote: paths, names, reading at random, writing whole."""

from cliptex.files.asking import ask
from cliptex.files.names import file_name
from cliptex.files.parsing import load_json, parse_json
from cliptex.files.paths import (
    AnyPath,
    Stamp,
    as_path,
    exists,
    is_local,
    own,
    read_bytes,
    stamp,
    walk,
)
from cliptex.files.places import check_can_make, new_folder, remove_whole, sweep
from cliptex.files.reading import OpenFiles, RandomFile, most_open, open_random
from cliptex.files.writing import (
    TEMPORARY_PATTERN,
    AtomicFile,
    append_lines,
    locked_beside,
    remove_abandoned,
    remove_durably,
    save_tensors,
    sha256_file,
    sha256_json,
    write_atomic,
)

__all__ = [
    "TEMPORARY_PATTERN",
    "AnyPath",
    "AtomicFile",
    "OpenFiles",
    "RandomFile",
    "Stamp",
    "append_lines",
    "as_path",
    "ask",
    "check_can_make",
    "exists",
    "file_name",
    "is_local",
    "load_json",
    "locked_beside",
    "most_open",
    "new_folder",
    "open_random",
    "own",
    "parse_json",
    "read_bytes",
    "remove_abandoned",
    "remove_durably",
    "remove_whole",
    "save_tensors",
    "sha256_file",
    "sha256_json",
    "stamp",
    "sweep",
    "walk",
    "write_atomic",
]
