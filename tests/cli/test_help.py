"""`--help` of every command: each option stands with its own explanation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest

from cliptex.cli.app import COMMANDS, main

FORM = re.compile(r"\((?:default|required).*?\)|\{.*?\}+|\[.*?\]+|\b[A-Z|]{3,}\b|-{3,}")
"""What tyro prints by itself: defaults, choices, types, rules."""


def commands(tree: Mapping[str, object], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, target in tree.items():
        if isinstance(target, Mapping):
            yield from commands(target, (*above, name))
        else:
            yield (*above, name)


@pytest.mark.parametrize("words", list(commands(COMMANDS)), ids=" ".join)
def test_help__explains_every_option(words: tuple[str, ...], capsys) -> None:
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    text = " ".join(line.strip("│╭╮╰╯─ ") for line in capsys.readouterr().out.splitlines()[1:])
    options = re.findall(r"(?<=\s)(--[a-z][\w-]+)(?:, --no-[\w-]+)? (.*?)(?= --[a-z]|$)", text)
    assert options
    bare = [name for name, said in options if not re.search("[a-z]{2,}", FORM.sub("", said))]
    assert not bare
