"""Which files and functions of the package a job enters: how far a reader must follow it.

    python benchmarks/count_calls.py [--check] [--list JOB] [--data FOLDER]

Runs five jobs of the command line on a tiny export of the playroom, each in a process of its own:
a linear probe of the fast recipe, the paper's heads, SSD, one expert over one shard into a store,
and four steps of training. A profile function counts the functions that are called at least once
and the files they lie in (bodies of modules and classes, comprehensions and lambdas do not count).
`--list JOB` prints them by file.

The last lines are `NAME: MEASURED (goal GOAL) ok|short`; with `--check` one that is short makes the
exit code 1.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import cliptex

PACKAGE = str(Path(cliptex.__file__).parent)
PROBES = ("fast", "paper", "ssd")
SMALL = ("--resolution", "64", "--epochs", "1", "--batch-size", "2", "--model", "playroom")
GOALS = {"fast": 30, "paper": 30, "ssd": 30, "label": 20, "train": 45}  # files
SHARED = 80  # percent of the files of any probe that all three enter


def jobs(data: Path, out: Path) -> dict[str, list[str]]:
    """The command line of each job, on the export at `data`."""
    voc = [
        "--dataset",
        "voc",
        "--root",
        str(data / "home/VOCdevkit"),
        "--out",
        str(out / "r.jsonl"),
    ]
    coco = ["--dataset", "coco", "--root", str(data / "home/coco"), "--out", str(out / "r.jsonl")]
    warm = ["--warmup-steps", "1"]
    web = ["--data", str(data / "web")]
    return {
        "fast": ["probe", *voc, *SMALL],
        "paper": ["probe", *voc, *SMALL, "--recipe", "paper", *warm],
        "ssd": ["probe", *coco, *SMALL, "--recipe", "small", "--probe", "ssd", *warm],
        "label": ["label", "run", *web, "--expert", "playroom:depth", "--out", str(out / "labels")],
        "train": [
            *("train", "playroom", *web, "--labels", str(data / "labels")),
            *("--tasks", "depth", "playroom-depth", "--out", str(out / "run")),
            *("--steps", "4", "--warmup-steps", "1", "--batch-size", "4"),
        ],
    }


def export(data: Path) -> None:
    """A tiny world and its depth labels, made once."""
    if (data / "done").exists():
        return
    for domain, count in (("web", "16"), ("home", "12")):
        out = str(data / domain)
        _cliptex(["playroom", "export", domain, "--out", out, "--count", count, "--size", "64"])
    web, labels = str(data / "web"), str(data / "labels")
    _cliptex(["label", "run", "--data", web, "--expert", "playroom:depth", "--out", labels])
    (data / "done").touch()


def _cliptex(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "cliptex", *words], check=True, capture_output=True)


def entered(words: list[str]) -> dict[str, list[str]]:
    """Functions entered by one command, by file relative to the package."""
    from cliptex.cli import main

    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        code = main(words)
    finally:
        sys.setprofile(None)
    if code:
        raise SystemExit(f"cliptex {' '.join(words)}: status {code}")
    found: dict[str, list[str]] = defaultdict(list)
    for one in seen:
        if one.co_filename.startswith(PACKAGE) and _is_function(one):
            found[one.co_filename.removeprefix(PACKAGE + "/")].append(one.co_qualname)
    return {file: sorted(names) for file, names in sorted(found.items())}


def _is_function(code: CodeType) -> bool:
    """Not the body of a module or class, a comprehension, or a lambda."""
    return bool(code.co_flags & inspect.CO_OPTIMIZED) and not code.co_name.startswith("<")


def measure(name: str, data: Path) -> dict[str, list[str]]:
    """`entered` of a job, in a process of its own, so that no cache of another job is warm."""
    command = [sys.executable, __file__, "--data", str(data), "--job", name]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{name}: {run.stderr.strip()[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    parser.add_argument("--list", choices=GOALS, help="print what this job enters, by file")
    parser.add_argument("--data", type=Path, help="folder of the export; temporary by default")
    parser.add_argument("--job", choices=GOALS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.job:
            words = jobs(options.data, Path(scratch))[options.job]
            print(json.dumps(entered(words)))
            return 0
        data = options.data or Path(scratch)
        export(data)
        if options.list:
            for file, names in measure(options.list, data).items():
                print(f"{file}: {', '.join(names)}")
            return 0
        return report({name: measure(name, data) for name in GOALS}, options.check)


def report(found: dict[str, dict[str, list[str]]], check: bool) -> int:
    """Print the counts and the goals; the exit code."""
    for name, files in found.items():
        print(f"{name}: {sum(map(len, files.values()))} functions in {len(files)} files")
    common = set.intersection(*(set(found[name]) for name in PROBES))
    least = 100 * len(common) / max(len(found[name]) for name in PROBES)
    met = [
        (f"{name}: {len(found[name])}", f"<= {goal}", len(found[name]) <= goal)
        for name, goal in GOALS.items()
    ]
    met.append((f"shared: {least:.0f} %", f"> {SHARED} %", least > SHARED))
    for text, goal, ok in met:
        print(f"{text} (goal {goal}) {'ok' if ok else 'short'}")
    return int(check and not all(ok for *_, ok in met))


if __name__ == "__main__":
    sys.exit(main())
