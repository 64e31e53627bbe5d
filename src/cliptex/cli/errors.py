"""What is wrong, in one line that names options: tyro's boxes, errors of the system and below.

Below the command line, messages name fields of configurations in backquotes (`batch_size`,
`augmentation=False`), since a user of the library knows no flags. `in_flags` is the one place that
makes options of the running command of them (--batch-size, --no-augmentation).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cliptex.console import did_you_mean

# What a path's error number means for the one who gave the path.
_PATHS = {
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, where a folder must be; give another path",
    errno.EISDIR: "this is a folder, where a file must be; give another path",
    errno.EEXIST: "something of this name is there already; give another path",
    errno.EACCES: "this user has no right to do this here; change the rights or the path",
    errno.EPERM: "the file system does not allow this; give another path",
    errno.EROFS: "the file system is read-only; give another path",
    errno.ENOSPC: "no space is left on the disk; free some and run the same command again",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
}
# What Python and tyro say of a value, and what is said instead.
_VALUES = (
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is no whole number"),
    (r"could not convert string to float: (.*)", r"\1 is no number"),
    (r"input length (\d+) did not match expected argument count (\d+).*", r"\2 values, not \1"),
    (r"Could not find valid parse for arguments: \[(.*)\]", r"\1 does not fit FORM"),
    (r"Failed to parse key-value pairs!", "pairs are wanted: NAME VALUE, and again"),
)
# Fields whose option has another name.
_OPTION_OF = {"codecs": "codec", "heads": "probe", "learning_rates": "lr", "protocols": "protocol"}
_FIELD = re.compile(r"`([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*)(?:=([^`\s]+))?`")

_options: ContextVar[Callable[[], Sequence[str]]] = ContextVar("options", default=tuple)


def now_running(options: Callable[[], Sequence[str]]) -> None:
    """Tell `in_flags` what gives the options (such as --data) of the command that runs now."""
    _options.set(options)


def in_flags(text: str, options: Sequence[str] | None = None) -> str:
    """The text with the fields in backquotes that are among `options` as flags.

    By default these are the options of the running command.

    `batch_size` becomes --batch-size, `epochs=3` becomes `--epochs 3`, `augmentation=False`
    becomes --no-augmentation, and what is no option of the command stays as it is.
    """
    if _FIELD.search(text) is None:
        return text
    known = frozenset(_options.get()() if options is None else options)

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        names = [one.replace("_", "-") for one in (name, _OPTION_OF.get(name, name))]
        option = next((f"--{one}" for one in names if f"--{one}" in known), None)
        if option is None:
            return found[0]
        negated = f"--no-{option[2:]}"
        if negated in known and value in ("True", "False"):
            return option if value == "True" else negated
        return option if value is None else f"`{option} {value}`"

    return _FIELD.sub(flag, text)


def of_the_system(error: OSError) -> str:
    """`PATH: what is wrong`, with a remedy where the error number tells one."""
    if error.errno is None or error.filename is None:
        return str(error)
    return f"{error.filename}: {_PATHS.get(error.errno, error.strerror or error.errno)}"


def find_command(
    commands: Mapping[str, Any], words: Sequence[str]
) -> tuple[str, Any, Sequence[str]]:
    """The command that `words` start with ("cliptex label run"), its function, the other words.

    Of a group (`cliptex label`) it is a mapping of its commands. ValueError for a word that is
    no command.
    """
    name, target = "cliptex", commands
    for number, word in enumerate(words):
        if not isinstance(target, Mapping) or word.startswith("-"):
            return name, target, words[number:]
        if word not in target:
            hint = did_you_mean(word, target) or f": choose one of {', '.join(target)}"
            raise ValueError(f"{word} is no command of `{name}`{hint}; see `{name} --help`")
        name, target = f"{name} {word}", target[word]
    return name, target, ()


@contextmanager
def in_one_line(command: str, options: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Raise what tyro rejects as ValueError of one line, where it would draw a box and exit.

    command: what is parsed, such as `cliptex label stats`. options: gives its options, such as
    --data, and is called where one is unknown.
    """
    try:
        from tyro._errors import on_parse_error  # tyro has no public name for it
    except ImportError:  # another version: its boxes stay
        yield
        return

    def refuse(event: Any) -> None:
        try:
            text = _describe(event, command, options)
        except AttributeError:  # another version
            return
        if text is not None:
            raise ValueError(f"{text}; see `{command} --help`")

    with on_parse_error(refuse):
        yield


def _describe(event: Any, command: str, options: Callable[[], Sequence[str]]) -> str | None:
    """What is wrong; None leaves it to tyro. Its kinds of events are told by their names."""
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        return _unknown(event.tokens, command, options())
    if kind == "MissingArgs" and event.unrecognized_tokens:
        return _unknown(event.unrecognized_tokens, command, options())
    if kind == "MissingArgs":
        missing = ", ".join(_name(one.arg) for one in event.missing_arguments)
        return f"`{command}` needs {missing}"
    if kind == "InvalidChoice":
        choices = sorted(set(event.choices) - {"None"})
        hint = did_you_mean(event.value, choices)
        return f"{_name(event.argument)} {event.value}: choose one of {', '.join(choices)}{hint}"
    if kind == "BadValue" and event.reason == "too_few_values":
        count = event.argument.lowered.nargs
        if event.argument.is_positional():
            return f"`{command}` needs {_name(event.argument)}"
        return f"{_name(event.argument)} needs {count} value{'s' if count != 1 else ''}"
    if kind == "InstantiationFailure":
        if event.argument is None:
            return event.message
        said = _value_error(event.message, event.argument.lowered.metavar)
        return f"{_name(event.argument)}: {said}"
    return None


def _unknown(tokens: Sequence[str], command: str, options: Sequence[str]) -> str:
    """Of the first unknown option (its values are not known either), or of one word too many."""
    option = next((token for token in tokens if token.startswith("-")), None)
    if option is None:
        return f"{tokens[0]}: `{command}` takes no such argument"
    option = option.split("=")[0]
    return f"{option} is no option of `{command}`{did_you_mean(option, options)}"


def _name(argument: Any) -> str:
    """--option, or NAME of a positional argument."""
    if argument.is_positional():
        return argument.field.intern_name.rpartition(".")[2].upper()
    return argument.lowered.name_or_flags[0]


def _value_error(message: str, form: str) -> str:
    """The reason in a message, which for a choice of types has one for each but None."""
    reasons = re.findall(
        r"^- <class (?!'NoneType').*?>: (.*)|^- (?!<class)\S.*?: (.*)", message, re.M
    )
    found = [first or second for first, second in reasons] or [message]
    for pattern, better in _VALUES:
        found = [re.sub(pattern, better.replace("FORM", form), text) for text in found]
    return " or ".join(found)
