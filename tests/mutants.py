"""Mutation testing: change the source in one small way, and see whether a test notices.

    .venv/bin/python tests/mutants.py --seed 1 --count 100 --log out.jsonl losses metrics labels

Every mutant runs in a fork of a process that has imported torch and pytest, on a copy of `src`:
first the tests that mirror its room, quickest file first, then, where it lives, those that import
its module. Outcomes are appended to `--log`; the same line run again goes on where it stopped.
Messages, annotations and docstrings are not changed. A survivor is to be judged: many are
equivalent (a bound that no input reaches), the others lack a test.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "cliptex"
PRELOADED = ("torch", "torchvision", "numpy", "scipy", "PIL.Image", "hypothesis", "pytest")
CPU_SECONDS, MEMORY = 90, 12 << 30  # of one mutant: more counts as noticed

COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor", "floor": "ceil"}
NAMES |= {"rows": "columns", "height": "width", "width": "height", "amin": "amax", "amax": "amin"}
QUIET = {"say", "warn", "print"}  # calls whose arguments are messages


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the `index`-th that `changes` finds there."""

    path: Path
    index: int
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.what}"


Change = tuple[str, Callable[[], None]]  # in words, and what makes it in the tree


def _set(node: ast.AST, field: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, field, value)


def _put(items: list, index: int, value: object) -> Callable[[], None]:
    return lambda: items.__setitem__(index, value)


def _constant(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield f"{value} -> {not value}", _set(node, "value", not value)
    elif isinstance(value, int):
        for other in (value + 1, value - 1):
            yield f"{value} -> {other}", _set(node, "value", other)
    elif isinstance(value, float):
        for other in (value + 1, value / 2 if value else -1.0):
            yield f"{value} -> {other}", _set(node, "value", other)


def _call(node: ast.Call) -> Iterator[Change]:
    for index, keyword in enumerate(node.keywords):
        rest = node.keywords[:index] + node.keywords[index + 1 :]
        yield f"drop {keyword.arg}=", _set(node, "keywords", rest)
    plain = not any(isinstance(item, ast.Starred) for item in node.args[:2])
    if len(node.args) >= 2 and plain:
        swapped = [node.args[1], node.args[0], *node.args[2:]]
        yield "swap two arguments", _set(node, "args", swapped)


def _expression(node: ast.AST) -> Iterator[Change]:
    """The changes of one node itself."""
    if isinstance(node, ast.Constant):
        yield from _constant(node)
    elif isinstance(node, ast.Call):
        yield from _call(node)
    elif isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            other = COMPARISONS[type(op)]
            what = f"{type(op).__name__} -> {other.__name__}"
            yield what, _put(node.ops, index, other())
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in ARITHMETIC:
        other = ARITHMETIC[type(node.op)]
        yield f"{type(node.op).__name__} -> {other.__name__}", _set(node, "op", other())
    elif isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} -> {other.__name__}", _set(node, "op", other())
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        negated = ast.UnaryOp(ast.Not(), node.test)
        yield "negate the condition", _set(node, "test", negated)
    elif isinstance(node, ast.comprehension):
        for index in range(len(node.ifs)):
            yield "drop a filter", _put(node.ifs, index, ast.Constant(True))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        yield f"drop {type(node.op).__name__}", _set(node, "op", ast.UAdd())
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            if getattr(node, bound) is not None:
                yield f"drop the {bound} bound", _set(node, bound, None)
    elif isinstance(node, (ast.Name, ast.Attribute)):
        field = "id" if isinstance(node, ast.Name) else "attr"
        name = getattr(node, field)
        if name in NAMES and isinstance(node.ctx, ast.Load):
            yield f"{name} -> {NAMES[name]}", _set(node, field, NAMES[name])


def _statement(body: list[ast.stmt], index: int) -> Iterator[Change]:
    """Leave out the statement, where the rest still runs."""
    statement = body[index]
    deletable = (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)
    if isinstance(statement, deletable):
        first = ast.unparse(statement).splitlines()[0]
        yield f"delete `{first[:60]}`", _put(body, index, ast.Pass())


def _is_text(node: ast.AST) -> bool:
    """Messages and docstrings, whose wording is no behaviour."""
    if isinstance(node, ast.Expr):
        call = node.value
        if isinstance(call, ast.Constant):
            return True
        return (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in QUIET
        )
    return isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom))


def changes(tree: ast.AST, line: int = 1) -> Iterator[tuple[int, Change]]:
    """Every change of `tree`, with its line, in a fixed order."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST):
                continue
            line = getattr(node, "lineno", line)
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(value, list) and isinstance(node, ast.stmt) and not is_docstring:
                yield from ((line, change) for change in _statement(value, index))
            if _is_text(node):
                continue
            yield from ((line, change) for change in _expression(node))
            yield from changes(node, line)


def mutants_of(path: Path) -> list[Mutant]:
    found = changes(ast.parse(path.read_text()))
    return [Mutant(path, i, line, what) for i, (line, (what, _)) in enumerate(found)]


def mutated(mutant: Mutant) -> str:
    tree = ast.parse(mutant.path.read_text())
    for index, (_, (_, apply)) in enumerate(list(changes(tree))):
        if index == mutant.index:
            apply()
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(tree)))


def sources(targets: list[str]) -> list[Path]:
    """The files of rooms (`labels`) and modules (`data/sampler.py`)."""
    paths = [PACKAGE / target for target in targets]
    found = [sorted(p.rglob("*.py")) if p.is_dir() else [p] for p in paths]
    return [path for group in found for path in group if path.name != "__init__.py"]


def tests_of(path: Path, seconds: dict[str, float]) -> tuple[list[str], list[str]]:
    """Test files of the module's room, its own first, then the quickest; and other importers."""
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    name = ".".join(("cliptex", *path.relative_to(PACKAGE).with_suffix("").parts))
    near = [*(ROOT / "tests" / room).rglob("test_*.py"), *(ROOT / "tests").glob(f"test_{room}*.py")]
    far = []
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        text = test.read_text()
        if test not in near and (f"{name} " in text or f"from cliptex.{room} import" in text):
            far.append(test)

    def order(test: Path) -> tuple[bool, float, str]:
        own = path.stem in test.stem
        return not own, seconds.get(str(test), test.stat().st_size / 1e3), str(test)

    return [str(t) for t in sorted(near, key=order)], [str(t) for t in sorted(far, key=order)]


class _Watch:
    """A pytest plugin: which test failed first, and how long every file took."""

    def __init__(self) -> None:
        self.failed = ""
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[str(ROOT / report.nodeid.split("::")[0])] += report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report) -> None:
        if report.failed and not self.failed:
            self.failed = f"collecting {report.nodeid}"


def _run(tests: list[str], answer: Path) -> None:
    import pytest

    watch = _Watch()
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = int(pytest.main(["-x", f"--rootdir={ROOT}", *quiet, *tests], plugins=[watch]))
    found = {"code": code, "failed": watch.failed, "seconds": dict(watch.seconds)}
    answer.write_text(json.dumps(found))


def run_forked(tests: list[str], folder: Path) -> dict:
    """Run `tests` in a fork: what failed first (""), how, and the seconds of every file."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        out = os.open(os.devnull, os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        try:
            _run(tests, answer)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 6 * CPU_SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.05)
    if not answer.exists():  # killed by a limit, or by the mutant
        return {"code": -1, "failed": "(ended or ran out of time)", "seconds": {}}
    return json.loads(answer.read_text())


def judge(mutant: Mutant, copied: Path, seconds: dict[str, float], folder: Path) -> str:
    """The test that notices `mutant`, or ""."""
    target = copied / mutant.path.relative_to(PACKAGE)
    original = target.read_bytes(), target.stat().st_mtime
    target.write_text(mutated(mutant))
    # A time of its own, so that no byte code of another mutant serves for it.
    stamp = 1_000_000_000 + random.SystemRandom().randrange(500_000_000)
    os.utime(target, (stamp, stamp))
    try:
        for tests in tests_of(mutant.path, seconds):
            outcome = run_forked(tests, folder) if tests else {"code": 0}
            if outcome["code"] != 0:
                return outcome["failed"] or f"pytest ended with {outcome['code']}"
        return ""
    finally:
        target.write_bytes(original[0])
        os.utime(target, (original[1], original[1]))


def identity(mutant: Mutant) -> str:
    digest = hashlib.sha256(mutant.path.read_bytes()).hexdigest()[:12]
    return f"{mutant.path.relative_to(PACKAGE)}@{digest}#{mutant.index}"


def sample(paths: list[Path], count: int, seed: int) -> list[Mutant]:
    everything = [mutant for path in paths for mutant in mutants_of(path)]
    print(f"{len(everything)} mutants in {len(paths)} files", flush=True)
    random.Random(seed).shuffle(everything)  # so that a larger count goes on after a smaller one
    return everything[:count]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("targets", nargs="+", help="rooms and modules below src/cliptex")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--log", type=Path, default=Path("mutants.jsonl"), help="outcomes (JSONL)")
    options = parser.parse_args()
    chosen = sample(sources(options.targets), options.count, options.seed)
    lines = options.log.read_text().splitlines() if options.log.exists() else []
    known = {entry["id"]: entry for entry in map(json.loads, lines)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(PACKAGE.parent, folder / "src")
        sys.path.insert(0, str(folder / "src"))
        os.environ["PYTHONPATH"] = str(folder / "src")
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
        os.chdir(ROOT)
        for module in PRELOADED:
            __import__(module)
        seconds: dict[str, float] = {}
        for room in dict.fromkeys(m.path.parent for m in chosen):  # unchanged, they must pass
            tests, _ = tests_of(next(m.path for m in chosen if m.path.parent == room), {})
            outcome = run_forked(tests, folder)
            if outcome["code"] != 0:
                print(f"{room}: {outcome['failed']} fails without any change")
                return 1
            seconds |= outcome["seconds"]
        survivors = []
        for number, mutant in enumerate(chosen, 1):
            entry = known.get(identity(mutant))
            if entry is None:
                begin = time.monotonic()
                killer = judge(mutant, folder / "src" / "cliptex", seconds, folder)
                took = round(time.monotonic() - begin, 1)
                entry = {"id": identity(mutant), "mutant": str(mutant), "killer": killer}
                with options.log.open("a") as log:
                    log.write(json.dumps({**entry, "seconds": took}) + "\n")
            fate = entry["killer"] or "SURVIVES"
            print(f"{number}/{len(chosen)} {mutant} | {fate}", flush=True)
            if not entry["killer"]:
                survivors.append(mutant)
    print(f"\n{len(survivors)} of {len(chosen)} survive")
    for mutant in sorted(survivors, key=str):
        print(f"  {mutant}\n      {mutant.path.read_text().splitlines()[mutant.line - 1].strip()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
