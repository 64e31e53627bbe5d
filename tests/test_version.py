from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import cliptex
from cliptex.cli import main

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def test_version__is_that_of_the_project():
    assert cliptex.__version__ == PROJECT["version"]


def test_version__of_the_command_names_torch_and_python(capsys):
    assert main(["--version"]) == 0
    told = capsys.readouterr().out
    expected = rf"cliptex {PROJECT['version']} \(torch {re.escape(version('torch'))}, python 3\.\d+"
    assert re.match(expected, told) and told.count("\n") == 1
