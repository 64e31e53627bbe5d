"""The tree of commands, and what an error looks like to the one who typed the command."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import tyro

import cliptex
from cliptex import console
from cliptex.cli import (
    blend,
    datasets,
    experts,
    export,
    label,
    label_checks,
    probe,
    runs,
    shards,
    train,
    zeroshot,
)
from cliptex.cli.errors import (
    find_command,
    in_flags,
    in_one_line,
    now_running,
    of_the_system,
)
from cliptex.cli.help import HELP_ALL, HELP_WORDS, Verb, group_help, option_names, verb_help
from cliptex.files.network import network_fault
from cliptex.machine import MissingPackage

Commands = dict[str, "Callable[..., None] | Verb[...] | Commands"]

COMMANDS: Commands = {
    "shards": {"import": shards.import_, "check": shards.check},
    "datasets": {"check": datasets.check, "overlap": datasets.overlap},
    "label": {
        "run": label.run,
        "retry": label.retry,
        "status": label_checks.status,
        "stats": label_checks.stats,
        "view": label_checks.view,
        "plan": label.plan,
        "verify": label_checks.verify,
        "score": label_checks.score,
        "agreement": label_checks.agreement,
        "adopt": label.adopt,
    },
    "experts": {"list": experts.list_, "check": experts.check},
    "train": train.train,
    "probe": probe.probe,
    "zeroshot": zeroshot.zeroshot,
    "report": runs.report,
    "export": export.export,
    "blend": blend.blend,
    "playroom": {"export": runs.export, "zoo": runs.zoo, "reproduce": runs.reproduce},
    "demo": runs.demo,
    "photos": runs.photos,
}
HELP = {
    "shards": "Image-text shards: import and check.",
    "datasets": "Benchmarks: check a download, find training pictures in it.",
    "label": "Labels of experts: plan, make, look at, verify, score and adopt them.",
    "experts": "The labelling models: list them, check one.",
    "playroom": "The embedded world: export its data sets, rebuild its shipped models.",
}
DESCRIPTION = (
    "Train CLIP with pseudo-labels of model-zoo experts, and measure what it gained.\n\n"
    "`cliptex --version` says which version this is."
)
EXAMPLES = ("cliptex demo --preset quick", "cliptex label run --help")
GO_ON = "what is done is kept: run the same command again to go on"
GOING_ON = {"demo", "label", "photos", "playroom", "train"}  # and whatever was given --state
KEPT = "what was written so far is whole and stays"
USER_ERROR, TOO_MANY_FAILURES, INTERRUPTED = 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 done; 2 for what the user can put right (one line on standard error); 3 where more inputs
    were left out than --max-failures allows (what was written stays); 130 after Ctrl-C.
    CLIPTEX_DEBUG=1 shows the traceback as well. Anything else is a bug and keeps its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.platform == "win32":
        print("error: CLIPTeX runs on Linux and macOS; on Windows use WSL", file=sys.stderr)
        return USER_ERROR
    try:
        if arguments[:1] == ["--version"]:
            print(_versions())
        else:
            with _naming_options():
                _run(arguments)
    except KeyboardInterrupt as error:
        stateful = any(word.startswith("--state") for word in arguments)
        kept = GO_ON if stateful or not GOING_ON.isdisjoint(arguments[:1]) else KEPT
        return _failed("interrupted", error, INTERRUPTED, kept)
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return USER_ERROR
    except console.TooManyFailures as error:
        return _failed("error", error, TOO_MANY_FAILURES)
    except (ValueError, OSError, MissingPackage) as error:
        return _failed("error", error, USER_ERROR)
    except Exception as error:
        if (why := network_fault(error)) is None:
            raise
        return _failed("error", OSError(f"{why}; run the same command again later"), USER_ERROR)
    return 0


def _run(arguments: list[str]) -> None:
    command, target, rest = find_command(COMMANDS, arguments)
    asked = [word for word in rest if word in HELP_WORDS]
    if isinstance(target, dict):
        if not asked:
            raise ValueError(_no_command(command, target, rest))
        print(_group_help(command, target))
        return
    verb = Verb.of(target)
    parts: Callable[[], Sequence[Any]] = lambda: [verb.function]  # noqa: E731
    if verb is train.train and rest and not rest[0].startswith("-"):
        rest = train.with_new_names(rest)
        command, parts = f"{command} {rest[0]}", partial(train.options_of, rest[0])
        verb = train.of_recipe(rest[0]) if asked else verb
    if asked:
        print(verb_help(command, verb, parts(), every=HELP_ALL in asked))
        return
    now_running(names := partial(_names, parts))
    with in_one_line(command, names):
        if verb is train.train and rest:
            train.run(rest)
        else:
            tyro.cli(verb.function, prog=command, args=rest)


@contextlib.contextmanager
def _naming_options() -> Iterator[None]:
    """Within, messages of the library name options where they name fields, as errors do."""

    def translate(record: logging.LogRecord) -> bool:
        record.msg, record.args = in_flags(record.getMessage()), ()
        return True

    console.LOGGER.addFilter(translate)
    try:
        yield
    finally:
        console.LOGGER.removeFilter(translate)


def _names(parts: Callable[[], Sequence[Any]]) -> list[str]:
    with contextlib.suppress(ValueError, OSError):  # of a recipe that is none
        return [name for part in parts() for name in option_names(part)]
    return []


def _no_command(command: str, group: Commands, rest: Sequence[str]) -> str:
    """What is said where a group stands without the name of one of its commands."""
    if rest:
        return f"{rest[0].split('=')[0]} is no option of `{command}`; see `{command} --help`"
    names = ", ".join(group)
    return f"`{command}` needs the name of a command: one of {names}; see `{command} --help`"


def _group_help(command: str, group: Commands) -> str:
    abouts = {
        name: HELP[name] if isinstance(target, dict) else Verb.of(target).about
        for name, target in group.items()
    }
    about, examples = (
        (DESCRIPTION, EXAMPLES) if group is COMMANDS else (HELP[command.split()[-1]], ())
    )
    return group_help(command, about, abouts, examples)


def _failed(word: str, error: BaseException, code: int, otherwise: str = "") -> int:
    if os.environ.get("CLIPTEX_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error)
    text = one_line(error) or otherwise or type(error).__name__
    print(f"{word}: {text}", file=sys.stderr)
    return code


def one_line(error: BaseException) -> str:
    """What an error and its notes say, as the command line shows it: lines become clauses."""
    parts = [_message(error), *getattr(error, "__notes__", [])]
    lines = [line.strip() for part in parts for line in part.splitlines() if line.strip()]
    return in_flags("; ".join(lines))


def _message(error: BaseException) -> str:
    """What it says; of a configuration that does not fit `field value: what is wrong`."""
    from pydantic import ValidationError  # --help does without

    if isinstance(error, OSError):
        return of_the_system(error)
    if not isinstance(error, ValidationError):
        return str(error)
    said = []
    for one in error.errors(include_url=False):
        where = ".".join(map(str, one["loc"]))
        message = one["msg"].removeprefix("Value error, ")
        said.append(f"`{where}` {one['input']!r}: {message}" if where else message)
    return "; ".join(said)


def _versions() -> str:
    """Of the package, of torch (read without importing it) and of Python."""
    from importlib import metadata

    torch, python = metadata.version("torch"), platform.python_version()
    return f"cliptex {cliptex.__version__} (torch {torch}, python {python})"
