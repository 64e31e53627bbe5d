"""Messages and progress by way of `logging`, and shares of inputs that may be left out."""

import io
import logging
import subprocess
import sys
from contextlib import redirect_stderr

import pytest

from cliptex import console


def test_check_failures_allows_the_stated_share():
    console.check_failures(5, 100, allowed=0.05, what="images", remedy="look")
    with pytest.raises(
        console.TooManyFailures,
        match=r"6 of 100 images were left out \(6.0 %\), more than the 5 % .*; look",
    ):
        console.check_failures(6, 100, allowed=0.05, what="images", remedy="look")


def test_check_failures_refuses_a_percentage():
    with pytest.raises(ValueError, match="max_failures 5: not a share from 0 to 1"):
        console.check_failures(0, 100, allowed=5, what="images", remedy="look")


def test_did_you_mean():
    known = ["--data", "--dataset", "--out"]
    assert console.did_you_mean("--dataste", known) == " (did you mean --dataset?)"
    assert console.did_you_mean("--oot", known) == " (did you mean --out?)"
    assert console.did_you_mean("--x", known) == ""


@pytest.fixture
def logger(monkeypatch):
    """The package's logger, as it was again afterwards, with progress wanted."""
    monkeypatch.setenv("CLIPTEX_QUIET", "")
    logger = logging.getLogger("cliptex")
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def speak() -> None:
    console.say("one [b]message[/b] :key:")
    console.warn("one warning")
    assert list(console.track(range(3), label="counting")) == [0, 1, 2]


def test_messages_are_printed_as_they_are(logger, capsys, monkeypatch):
    speak()
    out, err = capsys.readouterr()
    *lines, last = err.splitlines()
    assert out == "" and lines == ["one [b]message[/b] :key:", "one warning"]
    assert last.startswith("counting: 3 done in ")
    monkeypatch.setenv("CLIPTEX_QUIET", "1")
    speak()
    assert capsys.readouterr() == ("", "one warning\n")


def test_messages_go_to_the_standard_error_of_the_moment(logger, capsys):
    with redirect_stderr(io.StringIO()) as other:
        console.say("there")
    console.say("here")
    assert other.getvalue() == "there\n" and capsys.readouterr().err == "here\n"


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_a_level_silences_messages_and_progress(logger, capsys, level):
    logger.setLevel(level)
    speak()
    assert capsys.readouterr().err == ("one warning\n" if level == logging.WARNING else "")


def test_a_handler_receives_all_and_may_be_the_only_one(logger, capsys):
    stream = io.StringIO()
    logger.handlers[:] = [logging.StreamHandler(stream)]
    speak()
    assert capsys.readouterr().err == ""
    assert [line[:13] for line in stream.getvalue().splitlines()] == [
        *("one [b]messag", "one warning", "counting: 3 d")
    ]


def test_a_program_that_prints_its_log_prints_messages_once(logger, capsys):
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        console.say("once")
    finally:
        root.removeHandler(handler)
    assert capsys.readouterr().err == "once\n"


def test_a_record_says_where_it_comes_from(logger, caplog):
    speak()
    assert {record.funcName for record in caplog.records[:2]} == {"speak"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal__progress_is_a_bar(logger, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with redirect_stderr(Terminal()) as terminal:
        for number in console.track(range(3), label="counting"):
            console.say(f"message {number}")
    shown = terminal.getvalue()
    assert "counting" in shown and "3/3" in shown and "done in" not in shown
    assert all(f"message {number}" in shown for number in range(3))
    with redirect_stderr(Terminal()) as terminal:
        logger.setLevel(logging.WARNING)
        assert list(console.track(range(3), label="counting")) == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_importing_prints_nothing_and_needs_no_rich():
    code = "import sys, cliptex.console; assert not {'rich', 'torch'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
