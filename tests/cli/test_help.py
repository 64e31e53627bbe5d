"""`--help` of every command: short, each option with its own sentence, two examples that parse."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import tyro

from cliptex.cli import help
from cliptex.cli.app import COMMANDS, main
from cliptex.cli.errors import find_command
from cliptex.cli.help import FIRST_OPTIONS, Verb, read_options
from cliptex.cli.train import configuration, options_of

LINES = 60
FORM = re.compile(r"\((?:default|required).*?\)|\{.*?\}+|\b[A-Z|]{3,}\b")
"""What is shown without a text: defaults, choices, types."""
RECIPES = ["paper", "playroom", "playroom_pretrain", "photos"]


def verbs(tree: Mapping[str, object], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, target in tree.items():
        if isinstance(target, Mapping):
            yield from verbs(target, (*above, name))
        else:
            yield (*above, name)


VERBS = list(verbs(COMMANDS))


def verb_of(words: Sequence[str]) -> Verb[...]:
    target = find_command(COMMANDS, words)[1]
    assert isinstance(target, Verb)
    return target


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [*VERBS, *(("train", name) for name in RECIPES)], ids=" ".join)
def test_help__is_short_and_ends_with_two_examples(words: tuple[str, ...], capsys) -> None:
    lines = shown(capsys, *words, "--help").splitlines()
    assert len(lines) <= LINES
    assert lines[0].startswith(f"usage: cliptex {' '.join(words)}")
    assert lines[-4:-2] == ["", "examples:"]
    name = " ".join(words[: 1 if words[0] == "train" else None])
    assert all(line.startswith(f"  cliptex {name}") for line in lines[-2:])
    options = [line for line in lines if re.match("  --[a-z]", line)]
    assert len(options) <= FIRST_OPTIONS
    assert ("--help-all" in " ".join(lines)) == (
        shown(capsys, *words, "--help-all") != "\n".join(lines) + "\n"
    )


@pytest.mark.parametrize("words", [*VERBS, *(("train", name) for name in RECIPES)], ids=" ".join)
def test_help_all__explains_every_option(words: tuple[str, ...], capsys) -> None:
    text = shown(capsys, *words, "--help-all")
    parts = (
        options_of(words[1])
        if words[1:] in [(name,) for name in RECIPES]
        else [verb_of(words).function]
    )
    options = [option for part in parts for option in read_options(part)]
    assert [one.name for one in options if one.usage.split()[0].strip(",") not in text] == []
    assert [one.name for one in options if not re.search("[a-z]{2,}", FORM.sub("", one.text))] == []


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_first_options_are_options(words: tuple[str, ...]) -> None:
    verb = verb_of(words)
    parts = options_of("paper") if words == ("train",) else [verb.function]
    options = [option for part in parts for option in read_options(part)]
    assert set(verb.first) <= {option.field for option in options}
    assert verb.first or len(options) <= FIRST_OPTIONS + 1
    assert len(verb.first) == len(set(verb.first)) <= FIRST_OPTIONS


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_examples_parse(words: tuple[str, ...]) -> None:
    verb = verb_of(words)
    assert len(verb.examples) == 2

    @functools.wraps(verb.function)
    def parsed(*_: object, **__: object) -> str:
        return "parsed"

    for example in verb.examples:
        cliptex, *line = shlex.split(example.split("|")[0])
        assert cliptex == "cliptex" and tuple(line[: len(words)]) == words
        rest = line[len(words) :]
        if words == ("train",):
            assert configuration(rest[0], rest[1:])[1].out.is_relative_to(Path("runs"))
        else:
            assert tyro.cli(parsed, args=rest) == "parsed"


def test_help__of_groups_lists_their_commands(capsys) -> None:
    whole = shown(capsys, "--help")
    assert all(re.search(rf"^  {name} ", whole, re.M) for name in COMMANDS)
    group = shown(capsys, "label", "-h")
    assert re.search("^  status +Count what is labelled", group, re.M)


def test_help__shows_forms_defaults_and_fields_as_people_type_them(capsys) -> None:
    text = " ".join(shown(capsys, "label", "run", "--help-all").split())
    assert "--expert STR ... one or more" in text and "{None}" not in text
    assert "--batch-size INT images per call of an expert. (default: 8)" in text
    assert "--learnt-from STR ..." in text and "(default: None)" not in text
    probe = " ".join(shown(capsys, "probe", "--help-all").split())
    assert (
        "--augmentation, --no-augmentation" in probe and "--peak-tflops FLOAT FLOAT FLOAT" in probe
    )
    assert "(paper: needs --no-augmentation)" in probe


def test_help__of_another_tyro_is_its_own(monkeypatch, capsys) -> None:
    def fail(_: object) -> None:
        raise TypeError("other arguments")

    monkeypatch.setattr(help, "read_options", fail)
    text = shown(capsys, "demo", "--help")
    assert "--preset" in text and text.endswith(f"  {verb_of(['demo']).examples[-1]}\n")
