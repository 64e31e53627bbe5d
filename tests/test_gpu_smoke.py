"""The checks of benchmarks/gpu_smoke.py, as far as a CPU can run them."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def smoke(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_smoke")


def test_without_a_gpu_it_says_that_nothing_was_checked(smoke, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["smoke"])
    assert smoke.main() == 1
    assert "none of the GPU checks was run" in capsys.readouterr().out


def test_strays(smoke) -> None:
    expected = [2.0, 1.9, 1.8, 1.7]
    assert smoke.strays([2.01, math.nan, 1.81, 1.7], expected) == ""
    assert "away" in smoke.strays([2.0, 1.9, 1.8, 2.0], expected)
    assert "only 1 of 4" in smoke.strays([2.0, math.nan, math.nan, math.nan], expected)


@pytest.mark.slow
def test_the_checks_on_the_cpu(smoke, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["smoke", "--device", "cpu", "--ranks", "2"])
    assert smoke.main() == 0
    assert capsys.readouterr().out.count(": ok") == len(smoke.VARIANTS)
