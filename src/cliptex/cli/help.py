"""What `--help` prints: the options that people use first, and two examples; the rest on request.

Options, their types, defaults and texts are those of a verb's function and its configurations, as
tyro reads them.
"""

from __future__ import annotations

import inspect
import io
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec

import tyro

from cliptex.cli.errors import in_flags

P = ParamSpec("P")

HELP_ALL = "--help-all"
HELP_WORDS = ("-h", "--help", HELP_ALL)
FIRST_OPTIONS = 10  # that --help shows at most
INDENT = 26


@dataclass(frozen=True)
class Verb(Generic[P]):
    """A command: its function, and what its help says beside the options of the function.

    first: the options that --help shows, at most ten, as fields (`batch_size`, `around.base`);
        none where there are not more than ten. examples: two lines that run as they stand.
    """

    function: Callable[P, None]
    first: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    @staticmethod
    def of(target: Callable[..., None] | Verb[...]) -> Verb[...]:
        return target if isinstance(target, Verb) else Verb(target)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        self.function(*args, **kwargs)

    @property
    def about(self) -> str:
        """What the docstring of the function says before its arguments."""
        return (inspect.getdoc(self.function) or "").split("\nArgs:")[0].strip()


def verb(*examples: str, first: str = "") -> Callable[[Callable[P, None]], Verb[P]]:
    """Make a command of a function, see `Verb`; `first` are the names between spaces."""

    def wrap(function: Callable[P, None]) -> Verb[P]:
        return Verb(function, tuple(first.split()), examples)

    return wrap


@dataclass(frozen=True)
class Option:
    """One option or positional argument, as help shows it."""

    field: str
    name: str  # in the line of usage: --data PATH
    usage: str  # in the list: with what else it can be, such as --no-mask
    text: str
    required: bool
    positional: bool


def verb_help(command: str, shown: Verb[...], targets: Sequence[Any], *, every: bool) -> str:
    """Help of `command` ("cliptex label run"), whose options are those of `targets`.

    every: all options instead of the first.
    """
    try:
        options = [option for target in targets for option in read_options(target)]
    except (ImportError, TypeError, AttributeError):  # another version of tyro
        return "\n".join([*map(_own_help, targets), *_examples(shown.examples)])
    listed = options if every or not shown.first else _first(shown.first, options)
    needed = [one.name for one in options if one.required]
    lines = [*_wrapped(f"usage: {' '.join([command, *needed])} [OPTIONS]", 4), ""]
    lines += [*_paragraphs(shown.about), ""]
    names = [name for option in options for name in re.findall(r"--[a-z][\w.-]*", option.usage)]
    for option in listed:
        lines += _item(option.usage, in_flags(option.text, names), INDENT)
    if rest := len(options) - len(listed):
        lines += ["", f"{rest} more options: {command} {HELP_ALL}"]
    return "\n".join([*lines, *_examples(shown.examples)])


def group_help(command: str, about: str, verbs: Mapping[str, str], examples: Sequence[str]) -> str:
    """Help of a group of commands: what it is for, its verbs with a sentence each, examples."""
    lines = [f"usage: {command} COMMAND [OPTIONS]", "", *_paragraphs(about), "", "commands:"]
    lines += [line for name, text in verbs.items() for line in _item(name, _sentence(text), 16)]
    lines += ["", f"options of a command: {command} COMMAND --help"]
    return "\n".join([*lines, *_examples(examples)])


def read_options(target: Any) -> list[Option]:
    """The options of a function or dataclass, those of nested configurations last.

    AttributeError, ImportError or TypeError where tyro, which has no public name for them, is of
    another version.
    """
    from tyro._parsers import ParserSpecification
    from tyro._singleton import MISSING_NONPROP

    spec = ParserSpecification.from_callable_or_type(
        target,
        markers=set(),
        description=None,
        parent_classes=set(),
        default_instance=MISSING_NONPROP,
        intern_prefix="",
        extern_prefix="",
        subcommand_prefix="",
        support_single_arg_types=False,
        prog_suffix="",
    )
    return [
        _option(found.arg, str(found.source_parser.description or ""))
        for found in spec.get_args_including_children()
    ]


def option_names(target: Any) -> list[str]:
    """Such as --data, of a function or dataclass."""
    return re.findall(r"(?<=[│ ])--[a-z][a-z0-9_.-]+", _own_help(target))


def _own_help(target: Any) -> str:
    """What tyro would show."""
    shown = io.StringIO()
    with redirect_stdout(shown), suppress(SystemExit):
        tyro.cli(target, args=["--help"])
    return shown.getvalue()


def field_texts(documented: Any) -> dict[str, str]:
    """Name -> text of the arguments in a docstring."""
    listed = (inspect.getdoc(documented) or "").partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", listed, re.M)
    return {name: " ".join(text.split()) for name, text in found}


def _option(argument: Any, about: str) -> Option:
    lowered, form = argument.lowered, _form(argument.lowered.metavar or "")
    flag = lowered.name_or_flags[-1].removeprefix("--")
    if argument.is_positional():
        name = argument.field.intern_name.upper() + (" ..." if form.endswith(" ...") else "")
        usage = f"{name} {form}" if form.startswith("{") else name
    else:
        name = usage = f"--{flag} {form}".strip()
        if argument.field.default is True:
            usage = f"--{flag}, --no-{flag}"
    text = argument.field.helptext
    said = text() if callable(text) else text
    text = " ".join(str(said or about).split())  # keys of a mapping have no text
    hint = "required" if lowered.required else _default(argument)
    return Option(
        field=flag.replace("-", "_"),
        name=name,
        usage=usage,
        text=f"{text} ({hint})" if hint else text,
        required=bool(lowered.required),
        positional=argument.is_positional(),
    )


def _form(metavar: str) -> str:
    """`[INT [INT ...]]` as `INT ...`, `{None}|INT` as `INT`."""
    form = metavar.replace("{None}|", "").replace("{None,", "{")
    form = re.sub(r"^\{([^,]*)\}$", r"\1", form)  # {FLOAT FLOAT}
    form = form[1:-1] if form.startswith("[[") else form
    return re.sub(r"^\[(\S+(?: [A-Z]+)*) \[.*\.\.\.\]\]$", r"\1 ...", form)


def _default(argument: Any) -> str:
    """`default: VALUE`; empty where that is nothing, which the text then explains."""
    default, lowered = argument.field.default, argument.lowered
    if default is None or default is False or default in ((), "") or "MISSING" in str(default):
        return ""
    if default is True:
        return "default: yes"
    words = lowered.str_from_instance(default) if lowered.str_from_instance else [str(default)]
    return f"default: {' '.join(words)}" if words else ""


def _first(names: Sequence[str], options: Sequence[Option]) -> list[Option]:
    """Positional arguments, then the options in the order of `names`, of which some may lack."""
    named = {option.field: option for option in options if not option.positional}
    positional = [option for option in options if option.positional]
    return positional + [named[name] for name in names if name in named]


def _examples(lines: Sequence[str]) -> list[str]:
    return ["", "examples:", *(f"  {line}" for line in lines)] if lines else []


def _item(usage: str, text: str, indent: int) -> list[str]:
    """An indented usage with its text beside it, or below where it is long."""
    room = " " * indent
    beside = _wrapped(text, indent, " " * indent)
    if len(usage) + 4 <= indent:
        first = f"  {usage}".ljust(indent)
        return [first + beside[0].removeprefix(room), *beside[1:]] if text else [first.rstrip()]
    usage = usage.replace(",", ", ") if len(usage) + 2 > _width() else usage
    return [*_wrapped(usage, 6, "  "), *beside]


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ""
        yield from _wrapped(" ".join(paragraph.split()), 0)


def _sentence(text: str) -> str:
    """The first sentence of a docstring."""
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def _wrapped(text: str, indent: int, first: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _width(),
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 100)
