"""Hostile results.jsonl files and checkpoints; the truth is told by `json` and `safetensors`."""

from __future__ import annotations

import json
import math
import random
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cliptex.results import Result, read_results
from cliptex.training.checkpoint import load_state, save_state
from hostile_cases import ODD, Case, damage, disturb, short, write

ROW: dict[str, Any] = {
    "model": "cliptex",
    "task": "depth",
    "dataset": "nyu",
    "metric": "rmse",
    "value": 0.5,
    "better": "lower",
    "n": 654,
    "seed": 0,
    "protocol": {"recipe": "fast", "resolution": 512},
    "leak": False,
    "time": "2026-01-01T00:00:00+00:00",
}
NEEDED: dict[str, tuple[type, ...]] = {
    **{key: (str,) for key in ("model", "task", "dataset", "metric", "better")},
    "value": (int, float),
    "n": (int,),
}
ALLOWED: dict[str, tuple[type, ...]] = {
    **{"checkpoint": (str,), "probe": (str, type(None)), "seed": (int,), "protocol": (dict,)},
    **{"leak": (bool,), "time": (str,)},
}


def is_sound(row: Any) -> bool:
    """Whether a JSON value is a result, by the types that docs and rows of this project have."""
    if not isinstance(row, dict) or not NEEDED.keys() <= row.keys():
        return False
    types = {**NEEDED, **ALLOWED}
    whole = ("n", "seed")  # 3.0 is a whole number, too
    row = {k: int(v) if k in whole and _is_whole(v) else v for k, v in row.items()}
    if any(key not in types or not isinstance(value, types[key]) for key, value in row.items()):
        return False
    if any(isinstance(row.get(key), bool) for key in ("value", "n", "seed")):
        return False
    finite = abs(row["value"]) < 1e300  # beyond, JSON's integers are no float
    return row["better"] in ("higher", "lower") and finite


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def lines_of(data: bytes) -> list[Any]:
    """The JSON value of each line that is not blank; None where it has none."""
    found = []
    for line in data.replace(b"\r", b"\n").split(b"\n"):
        if line.strip(b" \t\r\n\xef\xbb\xbf"):
            try:
                found.append(json.loads(line.decode("utf-8-sig")))
            except (ValueError, RecursionError):
                found.append(None)
    return found


def results_case(rng: random.Random, number: int, folder: Path) -> Case:
    rows = [{**ROW, "value": 0.5 + n, "seed": n, "model": rng.choice("ab")} for n in range(4)]
    place, how = rng.randrange(4), ""
    lines = [json.dumps(row) for row in rows]
    way = number % 8
    if way < 3:
        row, how = disturb(rng, rows[place])
        lines[place] = json.dumps(row)
    elif way == 3:
        key, value = rng.choice(("value", "n", "seed", "model", "better")), rng.choice(ODD)
        lines[place] = json.dumps({**rows[place], key: value})
        how = f"{key} = {short(value, 40)!r}"
    elif way == 4:
        odd = (
            "[" * 100_000,
            "{}",
            "null",
            "",
            "\0" * 40,
            lines[0] + lines[1],
            lines[0][:-9],
            "\ufeff",
        )
        lines[place] = rng.choice(odd)
        how = f"a line {short(lines[place], 40)!r}"
    end = rng.choice(("\n", "\n", "\r\n"))
    data = (end.join(lines) + rng.choice(("", end))).encode(rng.choice(("utf-8", "utf-8-sig")))
    if way in (5, 6):
        data, how = damage(rng, data, ascii_only=rng.random() < 0.5)
    elif way == 7:
        encoding = rng.choice(("utf-16", "utf-32", "latin-1"))
        data, how = end.join([*lines, "é"]).encode(encoding), encoding
    path = write(folder / "results.jsonl", data)
    found = lines_of(data)
    sound = [row for row in found if is_sound(row)]

    def judge(answer: list[Result], said: str) -> str:
        keys = ("model", "task", "dataset", "metric", "value", "better", "n", "seed", "leak")
        given = [{key: getattr(row, key) for key in keys} for row in answer]
        wanted = [{key: row.get(key, ROW[key]) for key in keys} for row in sound]
        wanted = [{**row, "leak": bool(row["leak"])} for row in wanted]
        if given != wanted:
            return (
                f"{len(given)} rows, {len(wanted)} sound ones: {short(given)} for {short(wanted)}"
            )
        lost = len(found) - len(sound)
        return f"{lost} lines left out, not said" if lost and "line" not in said else ""

    readable = len(sound) == len(found) > 0
    how = f"line {place + 1} of 4: {how}"
    return Case(how, lambda: read_results(path), judge, ("results.jsonl",), readable)


STEPS = (3, 5)


def _network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    return network, torch.optim.AdamW(network.parameters(), lr=0.1)


@lru_cache
def run_folder(home: Path) -> Path:
    """A run with two checkpoints."""
    network, optimizer = _network()
    for step in range(1, STEPS[-1] + 1):
        optimizer.zero_grad()
        network(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        if step in STEPS:
            save_state(home, network, optimizer, step, keep=2, notes={"loss": 1 / step})
    return home


@lru_cache
def states(home: Path) -> dict[int, dict[str, Tensor]]:
    """Weights and optimizer of each step, by safetensors."""
    found = {}
    for step, folder in zip(STEPS, sorted((home / "checkpoints").glob("step-*")), strict=True):
        tensors = {f"model {k}": v for k, v in load_file(folder / "model.safetensors").items()}
        optimizer = load_file(folder / "optimizer.safetensors")
        found[step] = tensors | {f"optimizer {k}": v for k, v in optimizer.items()}
    return found


def _hurt(rng: random.Random, folder: Path) -> tuple[str, str]:
    """Damage a file of the checkpoint; its name and how."""
    path = rng.choice(sorted(p for p in folder.iterdir() if p.is_file()))
    if path.suffix == ".json" and rng.random() < 0.5:
        tree, how = disturb(rng, json.loads(path.read_bytes()))
        path.write_text(json.dumps(tree))
        return path.name, how
    way = rng.randrange(8)
    if way == 0:
        path.unlink()
        return path.name, "removed"
    if way == 1:
        path.write_bytes(b"")
        return path.name, "emptied"
    if way < 4 and path.suffix == ".safetensors":
        tensors = load_file(path)
        name = rng.choice(sorted(tensors))
        changes = {
            "taken out": None,
            "in float64": tensors[name].double(),
            "of another shape": torch.zeros(7),
            "NaN": torch.full_like(tensors[name], math.nan),
            "plus 1": tensors[name] + 1,
        }
        what = rng.choice(sorted(changes))
        kept = {**tensors, name: changes[what]}
        save_file({k: v for k, v in kept.items() if v is not None}, path)
        return path.name, f"{name} {what}"
    data, how = damage(rng, path.read_bytes())
    path.write_bytes(data)
    return path.name, how


def checkpoint_case(rng: random.Random, number: int, folder: Path) -> Case:
    home = run_folder(folder.parent / "run")
    expected = states(home)
    out = folder / "run"
    shutil.copytree(home, out)
    last = sorted((out / "checkpoints").glob("step-*"))[-1]
    if number % 10 == 0:
        shutil.rmtree(last)
        last.mkdir()
        changed, how = last.name, "an empty folder"
    else:
        changed, how = _hurt(rng, last)

    def run() -> tuple[int | None, dict[str, Tensor]]:
        network, optimizer = _network()
        saved = load_state(out, network, optimizer)
        names = dict(network.named_parameters())
        tensors = {f"model {name}": p.detach() for name, p in names.items()}
        for name, parameter in names.items():
            for key, value in optimizer.state[parameter].items():
                tensors[f"optimizer {key}.{name}"] = value
        return None if saved is None else saved.step, tensors

    def judge(answer: tuple[int | None, dict[str, Tensor]], said: str) -> str:
        step, tensors = answer
        if step not in expected:
            return f"goes on from step {step}"
        wanted = expected[step]
        if tensors.keys() != wanted.keys():
            return f"lacks {short(sorted(wanted.keys() ^ tensors.keys()))}"
        for name, tensor in tensors.items():
            if tensor.dtype != wanted[name].dtype or not torch.equal(tensor, wanted[name]):
                return f"{name} is not what was saved"
        said_so = changed in said or last.name in said
        return "" if step == STEPS[-1] or said_so else f"goes back to step {step}, not a word of it"

    return Case(f"{changed}, {how}", run, judge, (changed, last.name))
