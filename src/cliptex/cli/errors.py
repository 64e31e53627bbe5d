"""What is wrong with a command line, in one line each: tyro's boxes and the system's errors."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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


def of_the_system(error: OSError) -> str:
    """`PATH: what is wrong`, with a remedy where the error number tells one."""
    if error.errno is None or error.filename is None:
        return str(error)
    return f"{error.filename}: {_PATHS.get(error.errno, error.strerror or error.errno)}"


def find_command(commands: Mapping[str, Any], words: Sequence[str]) -> tuple[str, Any]:
    """The command that `words` start with ("cliptex label run"), and its function.

    Of a group (`cliptex label`) it is a mapping of its commands. ValueError for a word that is
    no command.
    """
    name, target = "cliptex", commands
    for word in words:
        if not isinstance(target, Mapping) or word.startswith("-"):
            break
        if word not in target:
            hint = did_you_mean(word, target) or f": choose one of {', '.join(target)}"
            raise ValueError(f"{word} is no command of `{name}`{hint}; see `{name} --help`")
        name, target = f"{name} {word}", target[word]
    return name, target


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
    if kind == "MissingSubcommand":
        names = ", ".join(event.subcommand_spec.parser_from_name)
        return f"`{command}` needs the name of a command: one of {names}"
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
