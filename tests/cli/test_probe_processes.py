"""`cliptex probe` as processes of its own: killed and gone on with, and several under torchrun."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import safe_open

from cliptex.cli.app import main

ENVIRONMENT = {"CLIPTEX_QUIET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SECONDS = 240  # far more than needed, for a machine that does much else


def command(root, out, *more: str) -> list[str]:
    arguments = ["probe", "--model", "playroom", "--dataset", "voc"]
    arguments += ["--root", str(root), "--out", str(out), "--recipe", "paper"]
    arguments += ["--resolution", "32", "--batch-size", "2", "--warmup-steps", "1", *more]
    return arguments


@contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the test."""
    environment = {**os.environ, **ENVIRONMENT}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        arguments, env=environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def values_of(path) -> dict:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    keys = ("model", "probe", "seed", "metric")
    found = {tuple(row[key] for key in keys): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


KILLED = """
import os, signal, sys
from cliptex.cli.app import main
from cliptex.probes.heads import MapLearner

learn = MapLearner.learn

def until(self, batch, factor, step):
    if step == 230:  # 30 after it was saved
        os.kill(os.getpid(), signal.SIGKILL)
    learn(self, batch, factor, step)

MapLearner.learn = until
raise SystemExit(main(sys.argv[1:]))
"""


def test_kill__goes_on_to_the_rows_of_an_undisturbed_run(voc, tmp_path):
    state = tmp_path / "state"
    # 300 steps, saved after 200 of them; stored features, because they are quick
    options = ("--probe", "linear", "--epochs", "150", "--no-augmentation")

    def arguments(name: str) -> list[str]:
        place = ("--features", str(tmp_path / "features"))
        out = tmp_path / f"{name}.jsonl"
        return command(voc, out, *options, *place)

    killed = [*arguments("killed"), "--state", str(state)]
    with started([sys.executable, "-c", KILLED, *killed]) as process:
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == -signal.SIGKILL, err
    assert not (tmp_path / "killed.jsonl").exists()
    with safe_open(state / "playroom/voc/paper/all.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 200
    assert main(killed) == 0 and main(arguments("undisturbed")) == 0
    undisturbed = values_of(tmp_path / "undisturbed.jsonl")
    assert values_of(tmp_path / "killed.jsonl") == undisturbed and undisturbed


def test_torchrun__two_processes_share_the_heads_and_give_the_rows_of_one(voc, tmp_path):
    options = ("--probe", "linear", "pspnet", "--seeds", "0", "1", "--epochs", "2", "--controls")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "-m", "cliptex"]
    with started([*torchrun, *command(voc, tmp_path / "many.jsonl", *options)]) as process:
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
    assert main(command(voc, tmp_path / "one.jsonl", *options)) == 0
    many, one = (values_of(tmp_path / f"{name}.jsonl") for name in ("many", "one"))
    # the model, random weights and pixels by four heads, and the mean answer for two probes
    assert many == one and len(one) == (3 * 4 + 2) * 3


DIVERGING = """
import sys
import torch
from cliptex.cli.app import main
from cliptex.probes.heads import MapLearner

learn = MapLearner.learn

def diverging(self, batch, factor, step):
    if self.key.head == "linear":
        self.diverged = True  # rank 0 is done long before rank 1
    learn(self, batch, factor, step)

MapLearner.learn = diverging
raise SystemExit(main(sys.argv[1:]))
"""


def test_torchrun__a_head_that_diverges_does_not_end_the_others(voc, tmp_path):
    script, out = tmp_path / "probe.py", tmp_path / "r.jsonl"
    script.write_text(DIVERGING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", str(script)]
    options = ("--probe", "linear", "pspnet", "--epochs", "20")
    with started([*torchrun, *command(voc, out, *options)]) as process:
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode != 0 and "linear, seed 0, on voc: its loss was not finite" in err
    assert {probe for _, probe, _, _ in values_of(out)} == {"pspnet"}
