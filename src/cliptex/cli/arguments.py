"""Arguments of commands that tyro does not know by itself: paths that may be URLs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from cliptex.files import AnyPath, as_path
from cliptex.machine import MissingPackage


def _parse(words: list[str]) -> AnyPath:
    try:
        return as_path(words[0])
    except MissingPackage as error:
        raise ValueError(str(error)) from error  # what tyro reports as the user's error


_SPEC: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="PATH|URL",
    instance_from_str=_parse,
    is_instance=lambda value: isinstance(value, Path) or hasattr(value, "storage_options"),
    str_from_instance=lambda path: [str(path)],
)

if TYPE_CHECKING:
    AnyPathArg: TypeAlias = AnyPath
else:  # on the command line PATH|URL: a local path, s3://..., hf://..., https://...
    AnyPathArg = Annotated[Any, _SPEC]
