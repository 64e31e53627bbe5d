"""`cliptex probe` as processes of its own: killed and gone on with, and several under torchrun."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors import safe_open

ENVIRONMENT = {"CLIPTEX_QUIET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SECONDS = 240


def command(root, out, *more: str) -> list[str]:
    arguments = ["cliptex", "probe", "--model", "playroom", "--dataset", "voc"]
    arguments += ["--root", str(root), "--out", str(out), "--recipe", "paper"]
    arguments += ["--resolution", "32", "--batch-size", "2", "--warmup-steps", "1", *more]
    return arguments


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(arguments: list[str]) -> None:
    process = start(arguments)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err


def values_of(path) -> dict:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = {(row["probe"], row["seed"], row["metric"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_kill__goes_on_to_the_rows_of_an_undisturbed_run(voc, tmp_path):
    options = ("--probe", "linear", "--epochs", "150", "--lr", "0.001", "0.01")  # 2 x 225 steps
    state = tmp_path / "state"
    arguments = [sys.executable, "-m", *command(voc, tmp_path / "a.jsonl", *options)]
    arguments += ["--state", str(state)]
    process = start(arguments)
    deadline = time.monotonic() + SECONDS
    while not list(state.glob("*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(SECONDS) == -signal.SIGKILL
    assert not (tmp_path / "a.jsonl").exists()
    with safe_open(state / "choice.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["bank"])["step"] >= 200
    finish(arguments)
    finish([sys.executable, "-m", *command(voc, tmp_path / "b.jsonl", *options)])
    assert values_of(tmp_path / "a.jsonl") == values_of(tmp_path / "b.jsonl")


@pytest.mark.parametrize("processes", [2])
def test_torchrun__processes_share_the_heads_and_give_the_rows_of_one(voc, tmp_path, processes):
    options = ("--probe", "linear", "pspnet", "--seeds", "0", "1", "--epochs", "2")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", str(processes), "-m"]
    finish([*torchrun, *command(voc, tmp_path / "many.jsonl", *options)])
    finish([sys.executable, "-m", *command(voc, tmp_path / "one.jsonl", *options)])
    many, one = (values_of(tmp_path / f"{name}.jsonl") for name in ("many", "one"))
    assert many == one and len(one) == 4 * 3
