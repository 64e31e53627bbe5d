"""How long `--help` of every command takes, from the start of the process to its end.

    python benchmarks/bench_help.py [--check] [--repeats N]

Each command runs N times in processes of its own, after one that compiles its modules, and the
fastest run counts: what another process takes from a shared machine says nothing about the command.

The last lines are `NAME: MEASURED (goal GOAL) ok|short`; with `--check` one that is short makes the
exit code 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

from cliptex.cli.app import COMMANDS

SECONDS = 0.5
LINES = 60
RECIPE = "paper"


def commands(tree: Mapping[str, object], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group, such as ("label", "run"), and a recipe of `train`."""
    yield above
    for name, target in tree.items():
        if isinstance(target, Mapping):
            yield from commands(target, (*above, name))
        else:
            yield (*above, name)
            if name == "train":
                yield ("train", RECIPE)


def measure(words: tuple[str, ...], repeats: int, compiled: str) -> tuple[float, int]:
    """Seconds of the fastest of `repeats` runs, and the lines of the help.

    compiled: folder for bytecode, which Python writes once as in any installation.
    """
    command = [sys.executable, "-m", "cliptex", *words, "--help"]
    environment = os.environ | {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    best, lines = float("inf"), 0
    for number in range(repeats + 1):
        start = time.perf_counter()
        shown = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment
        ).stdout
        if number:
            best = min(best, time.perf_counter() - start)
        lines = len(shown.splitlines())
    return best, lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="exit 1 where a claim is short")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each command")
    options = parser.parse_args()
    short = False
    with tempfile.TemporaryDirectory() as compiled:
        for words in commands(COMMANDS):
            seconds, lines = measure(words, options.repeats, compiled)
            ok = seconds < SECONDS and lines <= LINES
            short |= not ok
            name = " ".join(["cliptex", *words])
            print(
                f"{name}: {seconds:.2f} s, {lines} lines (goal < {SECONDS} s, {LINES} lines) "
                f"{'ok' if ok else 'short'}",
                flush=True,
            )
    return int(options.check and short)


if __name__ == "__main__":
    sys.exit(main())
