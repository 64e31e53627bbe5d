"""Arguments that tyro does not know by itself: paths that may be URLs, and layouts of data sets.

Choices of layouts and their check come from the one table of `datasets.catalogue`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from cliptex.console import did_you_mean
from cliptex.datasets import catalogue
from cliptex.datasets.catalogue import Names
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


def _one_of(names: Any) -> PrimitiveConstructorSpec[Any]:
    """One of `names()`, which are asked for when an option is read: a row may have been added."""

    def parse(words: list[str]) -> str:
        (word,) = words
        known = names()
        if word not in known:
            hint = did_you_mean(word, known)
            raise ValueError(f"{word}: choose one of {', '.join(sorted(known))}{hint}")
        return word

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names()) + "}",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    )


def _dense() -> Names:
    return catalogue.names_of("segmentation", "depth", "normals")


def _scored() -> Names:
    return tuple(name for name in _dense() if not catalogue.LAYOUTS[name].hub)


def _probed() -> Names:
    return _dense() + catalogue.names_of("classification", "detection")


def _prompted() -> Names:
    return catalogue.names_of("classification", "retrieval", "segmentation")


if TYPE_CHECKING:
    AnyPathArg: TypeAlias = AnyPath
    DenseLayout: TypeAlias = str
    Layout: TypeAlias = str
    Compared: TypeAlias = str
    Checked: TypeAlias = str
    Prompted: TypeAlias = str
else:
    # on the command line PATH|URL: a local path, s3://..., hf://..., https://...
    AnyPathArg = Annotated[Any, _SPEC]
    DenseLayout = Annotated[str, _one_of(_scored)]  # what labels are scored on
    Layout = Annotated[str, _one_of(_probed)]  # what a probe learns from
    Compared = Annotated[str, _one_of(catalogue.names_of)]
    Checked = Annotated[str, _one_of(catalogue.checked)]
    Prompted = Annotated[str, _one_of(_prompted)]  # what zero-shot scores
