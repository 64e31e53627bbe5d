from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cliptex.models.clip import load_clip
from cliptex.training import loop
from cliptex.training.config import dump_config, load_config
from cliptex.training.log import Progress
from cliptex.training.loop import TrainingInterrupted, train
from cliptex.training.setup import prepare

ALL = ("segmentation", "depth", "normals")


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def same_weights(one: Path, other: Path) -> bool:
    files = sorted(path.name for path in one.iterdir())
    assert files == sorted(path.name for path in other.iterdir())
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Have SIGTERM arrive during that step."""
    real, count = loop.train_step, iter(range(1, 10**6))

    def step(*arguments):
        if next(count) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(loop, "train_step", step)


@pytest.fixture(scope="module")
def undisturbed(configure, tmp_path_factory) -> Path:
    """A whole run with all tasks: dropout, crops, flips, bfloat16."""
    out = tmp_path_factory.mktemp("undisturbed")
    train(configure(*ALL), out)
    return out


def test_run_folder(undisturbed: Path, configure) -> None:
    assert load_config(undisturbed / "config.yaml") == configure(*ALL)
    environment = json.loads((undisturbed / "environment.json").read_text())
    assert torch.__version__.startswith(environment["packages"]["torch"])
    log = rows(undisturbed)
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]
    keys = {"loss", "loss_clip", *(f"loss_{task}" for task in ALL), "lr", "grad_norm"}
    keys |= {"logit_scale", "images_per_s", "data_wait", "mfu", "memory_gb", "batch", "skipped"}
    assert all(keys <= row.keys() for row in log)
    assert all(row["mfu"] > 0 and row["batch"] == 8 and row["memory_gb"] > 0.05 for row in log)
    assert [log[0]["lr"], log[2]["lr"], log[5]["lr"]] == pytest.approx([1e-6, 3e-3, 1e-6])


def test_final_checkpoint(undisturbed: Path) -> None:
    final = undisturbed / "checkpoints" / "final"
    model = load_clip(final)
    assert model.encode_image(torch.zeros(1, 3, 32, 32)).shape == (1, 16)
    heads = load_file(final / "heads.safetensors")
    assert heads["heads.segmentation.weight"].shape == (5, 16, 1, 1)
    assert all(name.startswith(("pyramid.", "heads.")) for name in heads)


def test_training_learns(configure, tmp_path: Path) -> None:
    weights = dict.fromkeys(("clip", *ALL), 1.0)
    config = configure(*ALL, steps=80, lr=1e-2, flip=0.0, loss_weights=weights)
    train(config, tmp_path)
    log = rows(tmp_path)
    for task in ALL:
        first, last = (sum(r[f"loss_{task}"] for r in part) for part in (log[:4], log[-4:]))
        assert last < 0.9 * first


def test_an_interrupted_run_ends_like_an_undisturbed_one(
    undisturbed: Path, configure, tmp_path: Path, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(TrainingInterrupted) as stopped:
            train(configure(*ALL), tmp_path)
    assert stopped.value.checkpoint.name == "step-00000003"
    assert stopped.value.code == 0
    # Other workers, another cache: neither may matter.
    final = train(configure(*ALL, workers=2, cache_bytes=0), tmp_path)
    assert same_weights(final, undisturbed / "checkpoints" / "final")
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_run_killed_between_checkpoints_goes_on_from_the_last(
    undisturbed: Path, configure, tmp_path: Path, monkeypatch
) -> None:
    config = configure(*ALL, checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Progress", Exploding)
        with pytest.raises(ZeroDivisionError):
            train(config, tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000004"]
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')  # half a line
    final = train(config, tmp_path)
    assert same_weights(final, undisturbed / "checkpoints" / "final")
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]


class Exploding(Progress):
    added = 0

    def add(self, total: float, applied: bool) -> None:
        self.added += 1
        if self.added == 5:
            raise ZeroDivisionError


def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(
    undisturbed: Path, configure, tmp_path: Path, monkeypatch, capsys
) -> None:
    config = configure(*ALL, checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Progress", Exploding)
        with pytest.raises(ZeroDivisionError):
            train(config, tmp_path)
    weights = tmp_path / "checkpoints" / "step-00000004" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 4
    weights.write_bytes(data)
    capsys.readouterr()
    final = train(config, tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(weights) in line and "going on from" in line and "step-00000002" in line
    assert same_weights(final, undisturbed / "checkpoints" / "final")
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]
    names = sorted(path.name for path in final.parent.iterdir())
    assert names == ["damaged-00000004", "final", "step-00000002", "step-00000004"]


def test_a_finished_run_is_left_alone(undisturbed: Path, configure) -> None:
    final = undisturbed / "checkpoints" / "final"
    before = (final / "model.safetensors").stat().st_mtime_ns
    assert train(configure(*ALL), undisturbed) == final
    assert (final / "model.safetensors").stat().st_mtime_ns == before


def test_another_configuration_is_refused(undisturbed: Path, configure) -> None:
    with pytest.raises(ValueError, match="tasks, lr") as error:
        train(configure("depth", lr=1.0), undisturbed)
    assert str(undisturbed / "config.yaml") in str(error.value)


def test_a_folder_without_a_step_may_be_configured_anew(configure, tmp_path: Path, capsys) -> None:
    dump_config(configure(lr=1.0), tmp_path / "config.yaml")  # of a run killed at its first step
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 7.0}\n')
    train(configure(steps=3), tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if "configured anew" in line]
    assert len(said) == 1 and "steps, lr" in said[0]
    assert load_config(tmp_path / "config.yaml") == configure(steps=3)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]


def test_weights_of_tasks_that_a_run_lacks_do_not_stop_it(
    undisturbed: Path, configure, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    weights = {**configure(*ALL).loss_weights, "edges": 3.0}
    train(configure(*ALL, loss_weights=weights), tmp_path / "run")


def test_a_second_trainer_is_refused(configure, tmp_path: Path, monkeypatch) -> None:
    refused: list[str] = []
    real = loop.train_step

    def step(*arguments):
        if not refused:  # the first training is at work
            with pytest.raises(ValueError, match="another training is at work") as error:
                train(configure(steps=3), tmp_path)
            refused.append(str(error.value))
        return real(*arguments)

    monkeypatch.setattr(loop, "train_step", step)
    assert train(configure(steps=3), tmp_path).exists()
    assert str(tmp_path) in refused[0]
    assert not (tmp_path / ".lock").exists()


def test_half_written_files_of_killed_runs_are_swept(configure, tmp_path: Path) -> None:
    mark = "0123456789abcdef0123456789abcdef"
    half = tmp_path / "checkpoints" / f".step-00000002.{mark}.tmp"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    for name in (f".config.yaml.{mark}.tmp", f".log.jsonl.{mark}.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".mine.tmp").write_text("kept")
    (tmp_path / ".lock").touch()  # of a killed run: no longer locked
    train(configure(steps=3), tmp_path)
    hidden = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob(".*"))
    assert hidden == [".mine.tmp"]


@pytest.mark.parametrize("where", ["file", "file/run"])
def test_a_folder_that_cannot_be_made(configure, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(NotADirectoryError, match=r"\(`out`\) cannot be made.* file; give another"):
        train(configure(), tmp_path / where)


def test_the_process_ends_on_sigterm_and_goes_on(configure, tmp_path: Path) -> None:
    config = configure(steps=100_000)
    dump_config(config, tmp_path / "given.yaml")
    program = (
        "import sys; from pathlib import Path; from cliptex.training.config import load_config;"
        "from cliptex.training.loop import train;"
        "train(load_config(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    out = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "given.yaml", out])
    try:
        deadline = time.monotonic() + 300
        while not ((out / "log.jsonl").exists() and rows(out)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
    (checkpoint,) = (out / "checkpoints").glob("step-*")
    saved = json.loads((checkpoint / "state.json").read_text())["step"]
    assert rows(out)[-1]["step"] == saved
    assert not (out / "checkpoints" / "final").exists()


def test_training_works_outside_the_main_thread(configure, tmp_path: Path) -> None:
    done: list[Path] = []
    thread = threading.Thread(target=lambda: done.append(train(configure(steps=3), tmp_path)))
    thread.start()
    thread.join(60)
    assert done and done[0].exists()


def test_the_global_random_state_is_left_alone(configure, tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    train(configure(steps=3), tmp_path)
    assert torch.equal(torch.rand(1), expected)


def test_clip_ft_sees_the_same_images_in_the_same_order(configure) -> None:
    ft, cliptex = prepare(configure()), prepare(configure(*ALL))
    for step in range(6):
        one, other = (run.dataset.batch(run.sampler, step) for run in (ft, cliptex))
        assert torch.equal(one.images, other.images)
        assert (one.captions, one.names) == (other.captions, other.names)


def test_a_line_of_the_log_covers_the_same_steps_after_a_stop(
    configure, tmp_path: Path, monkeypatch
) -> None:
    config = configure(*ALL, steps=8, log_every=3)
    train(config, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(TrainingInterrupted):
            train(config, tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)  # that is, after the fourth
        with pytest.raises(TrainingInterrupted):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run")
    timed = ("images_per_s", "data_wait", "mfu", "memory_gb")
    one, other = (
        [{k: v for k, v in row.items() if k not in timed} for row in rows(tmp_path / name)]
        for name in ("undisturbed", "run")
    )
    assert [row["step"] for row in one] == [3, 6, 8]
    assert one == other


def test_tensorboard_events(configure, tmp_path: Path) -> None:
    train(configure(steps=3, tensorboard=True), tmp_path)
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_float16_finds_its_scale(configure, tmp_path: Path) -> None:
    train(configure(*ALL, precision="fp16", steps=20, bad_steps=1), tmp_path)
    log = rows(tmp_path)
    skipped = sum(row["skipped"] for row in log)
    assert 0 < skipped < 15  # overflows at the first, too large scale are no failures
    assert log[-1]["skipped"] == 0 and log[-1]["loss"] > 0


def test_variable_resolution(configure, tmp_path: Path) -> None:
    final = train(configure(*ALL, resolution=((32, 32), (24, 40), (64, 48))), tmp_path)
    assert final.exists()


def test_half_a_label_store_trains(configure, write_labels, tmp_path: Path, capsys) -> None:
    write_labels(tmp_path / "labels", missing=range(16, 32))
    (tmp_path / "labels" / "exact-depth" / "web-00001.ledger").unlink()
    config = configure("depth", labels=tmp_path / "labels")
    coverage = prepare(config).dataset.labels["depth"].coverage(prepare(config).dataset.shards)
    assert coverage == 0.5
    assert train(config, tmp_path / "run").exists()


def test_labels_of_other_data_are_refused(configure, write_labels, tmp_path: Path) -> None:
    write_labels(tmp_path / "labels", dataset_id="0123456789abcdef")
    with pytest.raises(ValueError, match="0123456789abcdef") as error:
        train(configure("depth", labels=tmp_path / "labels"), tmp_path / "run")
    config = configure()
    assert prepare(config).dataset.shards.dataset_id in str(error.value)
    assert "cliptex label run" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"tasks": {"depth": "exact-normals"}},
            ValueError,
            "depth: .*unit-vector, not scalar-field",
        ),
        ({"tasks": {"depth": "nowhere"}}, FileNotFoundError, "nowhere"),
        ({"batch_size": 33}, ValueError, "`batch_size`: 33 .* larger than the data set of 32"),
        ({"warmup_steps": 6}, ValueError, r"warm-up .*`warmup_steps=0`"),
        ({"data": Path("/nowhere")}, FileNotFoundError, "/nowhere"),
    ],
)
def test_bad_input(configure, tmp_path: Path, changes, error, message) -> None:
    config = configure("depth", **changes)
    with pytest.raises(error, match=message):
        train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())  # a run that is refused claims nothing


def test_no_samples(configure, tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "empty").mkdir()
    tarfile.open(tmp_path / "empty" / "web-00000.tar", "w").close()
    with pytest.raises(ValueError, match="no sample"):
        train(configure(data=tmp_path / "empty"), tmp_path / "run")
