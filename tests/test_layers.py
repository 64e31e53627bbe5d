"""The direction of imports (strictly downwards, none within a row), read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Set
from pathlib import Path

import pytest

from cliptex.labels import kinds

PACKAGE = Path(__file__).parents[1] / "src" / "cliptex"

# From top to bottom, as CONTRIBUTING.md shows it. A name is a folder or a module of the package.
ROWS = (
    ("__main__",),
    ("cli",),
    ("pipeline",),
    ("recipes",),
    ("labelling", "training", "probes", "zeroshot", "report"),
    ("experts", "tasks", "playroom"),
    ("models", "data", "datasets"),
    ("labels",),
    ("shards",),
    ("losses", "metrics"),
    ("per_image",),
    ("results",),
    ("console", "files"),
    ("machine",),
)
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row}


def imported_names(source: str, package: str) -> list[str]:
    """All absolute names that a module imports, also inside functions; `package` is its own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def room(name: str) -> str | None:
    """The folder or module of the package that a full name lies in; None for other packages."""
    parts = name.split(".")
    return parts[1] if parts[0] == "cliptex" and len(parts) > 1 else None


def modules() -> list[tuple[Path, str]]:
    """(path, own package) of every module below src/cliptex."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        folder = path.parent.relative_to(PACKAGE).parts
        found.append((path, ".".join(("cliptex", *folder))))
    return found


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def breaches(path: Path, package: str, source: str) -> list[str]:
    own = room_of(path)
    found = []
    for name in imported_names(source, package):
        target = room(name)
        if target is None or target == own:
            continue
        if target not in LEVEL:
            found.append(f"{own} imports {name}, which has no row")
        elif own != "__init__" and LEVEL[target] <= LEVEL[own]:
            found.append(f"{own} imports {name}")
    return found


def test_every_module_has_a_row():
    rooms = {room_of(path) for path, _ in modules()} - {"__init__"}
    assert rooms <= LEVEL.keys(), f"add to ROWS: {sorted(rooms - LEVEL.keys())}"


def test_imports_go_downwards():
    found = []
    for path, package in modules():
        source = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(PACKAGE)}: {b}" for b in breaches(path, package, source)]
    assert found == []


@pytest.mark.parametrize(
    ("path", "source", "count"),
    [
        ("labels/kinds.py", "from cliptex.tasks import depth", 1),
        ("labels/kinds.py", "def f():\n    import cliptex.models.clip", 1),
        ("labels/kinds.py", "from ..data import joined", 1),
        ("labels/kinds.py", "from .codecs import x\nfrom cliptex.labels import y", 0),
        ("labels/kinds.py", "from cliptex.shards import dataset\nimport numpy", 0),
        ("probes/dense.py", "from cliptex.training import loop", 1),
        ("probes/dense.py", "from cliptex import nowhere", 1),
        ("probes/deep/dense.py", "from ... import recipes", 1),
    ],
)
def test_the_test_sees_breaches(path, source, count):
    own = PACKAGE / path
    package = ".".join(("cliptex", *Path(path).parent.parts))
    assert len(breaches(own, package, source)) == count


def modules_imported(path: Path, package: str, source: str, known: Set[str]) -> set[str]:
    """Those of `known` (full names of modules and packages) that a module imports, but itself."""
    own = package if path.stem == "__init__" else f"{package}.{path.stem}"
    found: set[str] = set()
    for name in imported_names(source, package):
        parents = (name.rsplit(".", drop)[0] for drop in range(name.count(".") + 1))
        if (module := next((one for one in parents if one in known), None)) is not None:
            found.add(module)
    return found - {own}


def circles(graph: Mapping[str, Set[str]]) -> list[set[str]]:
    """Groups of names that reach each other (strongly connected parts of more than one)."""
    reach = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:  # Warshall's closure
        for name in graph:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    groups = {frozenset(b for b in graph if b in reach[a] and a in reach[b]) for a in graph}
    return sorted((set(group) for group in groups if group), key=sorted)


def test_modules_of_a_room_form_no_circle():
    """Imports inside functions and for type checkers count, too: a reader follows them as well."""
    own = {}
    for path, package in modules():
        own[package if path.stem == "__init__" else f"{package}.{path.stem}"] = (path, package)
    graph = {}
    for name, (path, package) in own.items():
        found = modules_imported(path, package, path.read_text(encoding="utf-8"), own.keys())
        graph[name] = {other for other in found if room(other) == room(name)}
    assert circles(graph) == []


def test_the_test_sees_circles():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    known = {"cliptex.labels", "cliptex.labels.kinds", "cliptex.labels.codecs"}
    source = "from cliptex.labels import kinds\nfrom cliptex.labels.codecs import encode"
    path = PACKAGE / "labels" / "reader.py"
    found = modules_imported(path, "cliptex.labels", source, known)
    assert found == {"cliptex.labels.kinds", "cliptex.labels.codecs"}


def packages_of(folder: str) -> set[str]:
    """Top-level packages that the modules of a folder import themselves."""
    found: set[str] = set()
    for path, package in modules():
        if room_of(path) == folder:
            names = imported_names(path.read_text(encoding="utf-8"), package)
            found |= {name.split(".")[0] for name in names}
    return found


@pytest.mark.parametrize("folder", ["report", "cli"])
def test_no_torch_in(folder):
    assert not packages_of(folder) & {"torch", "torchvision", "timm", "open_clip"}


@pytest.mark.parametrize("folder", ["training", "probes", "zeroshot", "report"])
def test_offline_rooms_import_no_experts(folder):
    for path, package in modules():
        if room_of(path) == folder:
            names = imported_names(path.read_text(encoding="utf-8"), package)
            assert not [n for n in names if room(n) == "experts" or n.startswith("onnx")], path


KINDS = {kind.__name__ for kind in kinds.KINDS.values()} | {"Kind"}


def questions(source: str) -> list[int]:
    """Lines that ask of which kind a label is: isinstance, type(), or a case of a match."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, asked]):
                names = {leaf.id for leaf in ast.walk(asked) if isinstance(leaf, ast.Name)}
                names |= {leaf.attr for leaf in ast.walk(asked) if isinstance(leaf, ast.Attribute)}
                found += [node.lineno] if names & KINDS else []
            case ast.MatchClass(cls=ast.Name(id=name) | ast.Attribute(attr=name)):
                found += [node.lineno] if name in KINDS else []
            case ast.Compare(left=left, comparators=others):
                sides = "".join(ast.dump(side) for side in (left, *others))
                asked = any(f"id='{name}'" in sides for name in KINDS)
                found += [node.lineno] if "id='type'" in sides and asked else []
    return found


def test_no_room_but_labels_asks_of_which_kind_a_label_is():
    found = []
    for path, _ in modules():
        if room_of(path) != "labels":
            lines = questions(path.read_text(encoding="utf-8"))
            found += [f"{path.relative_to(PACKAGE)}:{line}" for line in lines]
    assert found == [], "give labels/kind.py a method instead"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("isinstance(kind, ClassMap)", 1),
        ("isinstance(kind, (int, kinds.ScalarField))", 1),
        ("match kind:\n    case UnitVector():\n        pass", 1),
        ("type(kind) is ClassMap", 1),
        ("ClassMap.expect(kind, where)\nisinstance(kind, str)\nkind == ClassMap(('a',))", 0),
    ],
)
def test_the_test_sees_questions(source, count):
    assert len(questions(source)) == count
