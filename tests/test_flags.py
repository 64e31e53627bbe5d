"""Below the command line no text names a flag: messages name fields, see cliptex.cli.errors."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "cliptex"
FLAG = re.compile(r"(?<![-\w])--[a-z]")


def flags(source: str) -> list[str]:
    """The strings of a module that name a flag, docstrings and parts of f-strings among them."""
    strings = (
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [text for text in strings if FLAG.search(text)]


def rooms() -> list[str]:
    names = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}
    return sorted(name.removesuffix(".py") for name in names - {"cli"})


@pytest.mark.parametrize("room", rooms())
def test_no_flag_in(room: str) -> None:
    module = PACKAGE / f"{room}.py"
    files = [module] if module.is_file() else sorted((PACKAGE / room).rglob("*.py"))
    found = {path.name: flags(path.read_text(encoding="utf-8")) for path in files}
    assert not {name: said for name, said in found.items() if said}


def test_the_test_sees_flags() -> None:
    source = 'f"take {x} (--lr)"\n"--no-mask: leave out"\n"a -- b, ---, x--y" # --lr\n'
    assert sorted(flags(source)) == [" (--lr)", "--no-mask: leave out"]
