"""`cliptex probe` as it is typed, on a world of a few pictures."""

import json

import h5py
import numpy as np
import pytest
import scipy.io

from cliptex.cli.app import main
from cliptex.probes import baselines, features
from cliptex.probes.heads import HEADS, MapLearner
from cliptex.probes.method import Batch
from cliptex.report import write_report
from cliptex.report.bootstrap import compare_images
from cliptex.report.parts import read_panels
from cliptex.results import read_results


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["probe", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def common(voc, out):
    return ["--model", "playroom", "--dataset", "voc", "--root", str(voc), "--out", str(out)]


SMALL = ("--resolution", "64", "--epochs", "2", "--batch-size", "2")


def test_paper__heads_and_seeds_give_a_row_each(voc, tmp_path, capsys):
    out, state = tmp_path / "r.jsonl", tmp_path / "state"
    arguments = [*common(voc, out), "--recipe", "paper", "--probe", "linear", "pspnet"]
    arguments += ["--seeds", "0", "1", "--warmup-steps", "1", *SMALL, "--name", "mine"]
    code, text, err = run(capsys, *arguments, "--state", str(state))
    assert code == 0, err
    rows = [row for row in rows_of(out) if row["metric"] == "miou"]
    assert [(row["probe"], row["seed"]) for row in rows] == [
        ("linear", 0),
        ("linear", 1),
        ("pspnet", 0),
        ("pspnet", 1),
    ]
    assert {row["model"] for row in rows} == {"mine"}
    assert rows[0]["protocol"]["schedule"]["lr"] == 3e-5
    assert (
        "segmentation pspnet miou on voc, seed 1" in text
        and (state / "mine/voc/paper/all.safetensors").exists()
    )


def test_out__is_tried_before_anything_is_trained(voc, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(MapLearner, "learn", None)
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file/r.jsonl"):
        code, _, err = run(capsys, *common(voc, out), "--recipe", "small")
        assert code == 2 and str(out.parent) in err and err.count("\n") == 1


def test_rows__are_kept_when_a_later_control_fails(voc, tmp_path, capsys, monkeypatch):
    out = tmp_path / "r.jsonl"

    def fail(*_, **__):
        raise ValueError("no controls today")

    monkeypatch.setattr(baselines, "run_dense_baseline", fail)
    code, _, err = run(capsys, *common(voc, out), *SMALL, "--controls")
    assert code == 2 and "no controls today" in err
    assert {row["model"] for row in rows_of(out)} == {"playroom", "random-init", "pixels"}


def test_rows__say_their_splits(voc, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    code, _, err = run(capsys, *common(voc, out), *SMALL, "--controls")
    assert code == 0, err
    for row in rows_of(out):
        assert row["protocol"]["train_split"] == "train"
        assert (row["protocol"]["val_split"], row["protocol"]["test_split"]) == (None, "test")


def test_state__one_folder_serves_models_and_data_sets(voc, tmp_path, capsys):
    arguments = [*common(voc, tmp_path / "r.jsonl"), "--recipe", "paper", "--probe", "linear"]
    arguments += [*SMALL, "--warmup-steps", "1", "--state", str(tmp_path / "state")]
    for more in ((), ("--name", "a/b"), ("--dataset", "voc20")):
        code, _, err = run(capsys, *arguments, *more)
        assert code == 0, err
    code, _, err = run(capsys, *arguments, "--batch-size", "3")
    assert code == 2 and "name another folder for --state" in err


def test_epochs__asked_for_are_the_epochs_done(voc, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    for more in ((), ("--epochs", "1")):
        code, _, err = run(capsys, *common(voc, out), "--resolution", "64", *more)
        assert code == 0, err
    steps = [(r["protocol"]["epochs"], r["protocol"]["min_steps"]) for r in rows_of(out)]
    assert set(steps) == {(12, 200), (1, 0)}


def test_output_stride__dilates_the_encoder_and_is_in_the_rows(voc, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    arguments = [*common(voc, out)[2:], *SMALL, "--lr", "0.1"]
    for stride in ("32", "16"):
        model = ("--model", "timm:resnet18", "--output-stride", stride)
        code, _, err = run(capsys, *model, *arguments)
        assert code == 0, err
    rows = [row["protocol"] for row in rows_of(out) if row["metric"] == "miou"]
    assert [row["encoder_stride"] for row in rows] == [32, 16]
    assert [row["map"][1:] for row in rows] == [[2, 2], [4, 4]]
    code, _, err = run(capsys, "--model", "playroom", "--output-stride", "16", *arguments)
    assert code == 2 and "--output-stride applies only to ResNets" in err.replace("`", "")


def test_fast__is_the_default(voc, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    code, _, err = run(capsys, *common(voc, out), "--lr", "0.1", "--resolution", "64")
    assert code == 0, err
    assert rows_of(out)[0]["protocol"]["standardise"] is True


def test_dry_run__tells_the_cost_and_trains_nothing(voc, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    arguments = [*common(voc, out), "--recipe", "paper", "--dry-run", "--probe", "deeplabv3"]
    code, text, err = run(capsys, *arguments, "--resolution", "64")
    assert code == 0, err
    assert "4 x 50 + 2" in text and "GPU-hours" in text and not out.exists()


def test_dry_run__all_twelve_columns_of_the_paper_by_default(capsys):
    code, text, err = run(capsys, "--model", "playroom", "--recipe", "paper", "--dry-run")
    assert code == 0, err
    lines = text.splitlines()
    assert all(word in lines[1] for word in ("images", "steps", "PFLOP", "GiB", "GPU-hours"))
    found, where = [], ""
    for line in lines[2:-3]:
        words = line.split()
        if line[0] != " ":
            where = " ".join(words[:2])
            assert words[7] == "encoder"
        else:
            found.append((where, words[0]))
    three = ("linear", "deeplabv3", "pspnet")
    assert found == [
        *(("segmentation voc", head) for head in three),
        *(("segmentation ade20k", head) for head in three),
        ("detection coco", "mask_rcnn"),
        ("detection coco", "ssd"),
        *(("depth nyu-depth", head) for head in three),
        *(("normals nyu-normals", head) for head in three),
        ("classification imagenet", "linear"),
        ("classification places365", "linear"),
    ]
    assert lines[-3].split()[:2] == ["sum", "16"]


def test_per_image__values_lie_where_the_report_looks(voc, tmp_path, capsys):
    out = tmp_path / "run" / "results.jsonl"
    for name in ("a", "timm:b/c"):  # a model may be called like a path
        arguments = [*common(voc, out), "--name", name, "--lr", "0.1", "--resolution", "64"]
        code, _, err = run(capsys, *arguments)
        assert code == 0, err
    rows = read_results(out)
    found = compare_images(rows, [out.parent / "per_image"], "timm:b/c", "a")
    assert {one.measure.metric for one in found} == {"miou", "miou_things", "miou_foreground"}
    assert all(one.n == 2 and one.difference is not None for one in found)


def test_errors__the_other_rows_are_kept_and_the_command_fails(voc, tmp_path, capsys, monkeypatch):
    learn = MapLearner.learn

    def sick(self, batch, *rest):
        if self.key.head == "pspnet":
            batch = Batch(batch.features * float("nan"), batch.targets)
        learn(self, batch, *rest)

    monkeypatch.setattr(MapLearner, "learn", sick)
    out = tmp_path / "r.jsonl"
    arguments = [*common(voc, out), "--recipe", "paper", "--probe", "pspnet", "linear"]
    code, text, err = run(capsys, *arguments, "--warmup-steps", "1", *SMALL)
    assert {row["probe"] for row in rows_of(out)} == {"linear"} and "linear miou" in text
    assert code == 2 and "pspnet, seed 0" in err and "smaller learning rate" in err


@pytest.fixture
def nyu(tmp_path):
    """Six pictures of 480 x 640 whose raw depth lacks the left third, in NYUv2's layout."""
    root, rng = tmp_path / "nyu", np.random.default_rng(1)
    root.mkdir()
    blocks = rng.integers(0, 200, (6, 3, 8, 6), np.uint8).repeat(80, 2).repeat(80, 3)
    depths = rng.uniform(1, 8, (6, 8, 6)).astype(np.float32).repeat(80, 1).repeat(80, 2)
    raw = depths.copy()
    raw[:, :200] = 0  # arrays of MATLAB are transposed: (N, W, H)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        for key, values in (("images", blocks), ("depths", depths), ("rawDepths", raw)):
            file.create_dataset(key, data=values)
    numbers = {"trainNdxs": [[1], [2], [3], [4]], "testNdxs": [[5], [6]]}
    scipy.io.savemat(root / "splits.mat", numbers)
    return root


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_protocols__depth_is_scored_by_all_and_rows_say_which(nyu, tmp_path, capsys, recipe):
    out = tmp_path / "r.jsonl"
    arguments = ["--model", "playroom", "--dataset", "nyu-depth", "--root", str(nyu)]
    arguments += ["--out", str(out), "--resolution", "64", "--epochs", "2", "--lr", "0.001"]
    if recipe == "paper":
        arguments += ["--recipe", "paper", "--probe", "linear", "--warmup-steps", "1"]
    code, text, err = run(capsys, *arguments, "--protocol", "lasinger", "eigen", "eigen-raw")
    assert code == 0, err
    rows = [row for row in rows_of(out) if row["metric"] == "absrel"]
    told = [[row["protocol"][key] for key in ("name", "depths", "crop", "range")] for row in rows]
    assert told == [
        ["lasinger", "rawDepths", None, [0, 10]],
        ["eigen", "depths", [45, 471, 41, 601], [0.001, 10]],
        ["eigen-raw", "rawDepths", [45, 471, 41, 601], [0.001, 10]],
    ]
    assert {row["protocol"]["train_depths"] for row in rows} == {"rawDepths"}
    assert len({row["value"] for row in rows}) == 3 and "absrel (eigen) on nyu-depth" in text
    saved = {path.name for path in (tmp_path / "per_image").iterdir()}
    assert len([name for name in saved if "eigen" in name]) == 2 * 7  # all measures of one image


def test_features__of_the_fast_recipe_are_not_computed_again(voc, tmp_path, capsys, monkeypatch):
    folder, seeds = tmp_path / "features", ("--seeds", "0", "1")

    def probe(name: str, *more: str) -> list[dict]:
        out = tmp_path / f"{name}.jsonl"
        code, _, err = run(capsys, *common(voc, out), *SMALL, *seeds, *more)
        assert code == 0, err
        return rows_of(out)

    plain, first = probe("plain"), probe("first", "--features", str(folder))
    assert [row["value"] for row in first] == [row["value"] for row in plain]  # float16 either way
    assert first[0]["protocol"]["features"] == "stored as float16, no augmentation"
    assert 0 < first[0]["protocol"]["storage_error"] < 2**-11
    asked = (*common(voc, tmp_path / "r"), *SMALL, "--features", str(tmp_path / "f"))
    code, _, err = run(capsys, *asked, "--features-gib", "0")
    assert code == 2 and "--features-gib" in err
    monkeypatch.setattr(features, "encode", None)  # what a killed probe has left is not lost
    again = probe("again", "--features", str(folder))
    assert [row["value"] for row in again] == [row["value"] for row in first]


def test_features__need_no_augmentation_and_fit_the_budget(voc, tmp_path, capsys):
    out, folder = tmp_path / "r.jsonl", tmp_path / "features"
    arguments = [*common(voc, out), "--recipe", "paper", "--warmup-steps", "1", *SMALL]
    arguments += ["--features", str(folder)]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "--no-augmentation" in err
    code, _, err = run(capsys, *arguments, "--no-augmentation", "--features-gib", "0")
    assert code == 2 and "--features-gib" in err
    code, _, err = run(capsys, *arguments, "--no-augmentation")
    assert code == 0, err
    protocol = rows_of(out)[0]["protocol"]
    assert protocol["features"] == "stored as float16, no augmentation"
    assert 0 < protocol["storage_error"] < 1e-3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "playroom"], "--dataset and --root"),
        (["--model", "playroom", "--out", "x"], "--dataset and --root"),
    ],
)
def test_faults(arguments, said, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and said in err


def test_faults__late_ones_name_the_remedy(voc, tmp_path, capsys):
    arguments = [*common(voc, tmp_path / "r.jsonl"), "--probe", "pspnet"]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "--recipe paper" in err
    code, _, err = run(capsys, *arguments, "--recipe", "paper", *SMALL)
    assert code == 2 and "--warmup-steps" in err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--epochs", "0"), "epochs 0: Input should be greater than 0"),
        (("--lr", "0"), "--lr: (0.0,) must be positive"),
        (("--seeds",), "--seeds needs at least one value"),
        (("--pictures", "-1"), "--pictures: -1 must not be negative"),
        (("--dry-run",), "--dry-run counts the other recipes"),
    ],
)
def test_faults__name_the_option(voc, tmp_path, capsys, options, text):
    code, _, err = run(capsys, *common(voc, tmp_path / "r.jsonl"), *options)
    assert code == 2 and text in err and err.count("\n") == 1


def test_faults__classification_supports_only_the_linear_head(tmp_path, capsys):
    arguments = ["--model", "playroom", "--dataset", "folder", "--root", str(tmp_path)]
    arguments += ["--out", str(tmp_path / "r.jsonl"), "--recipe", "small", "--probe", "pspnet"]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "--probe: classification supports only the linear head, not pspnet" in err


@pytest.mark.parametrize(
    ("recipe", "option"),
    [
        ("fast", ("--state", "s")),
        ("fast", ("--warmup-steps", "1")),
        ("fast", ("--no-augmentation",)),
        ("paper", ("--scratch", "s")),
        ("fast", ("--protocol", "eigen")),
        ("paper", ("--protocol", "eigen")),
    ],
)
def test_faults__no_option_is_passed_over_in_silence(voc, tmp_path, capsys, recipe, option):
    out = tmp_path / "r.jsonl"
    code, _, err = run(capsys, *common(voc, out), "--recipe", recipe, *SMALL, *option)
    assert code == 2 and f"{option[0]}: " in err and "leave it out" in err and not out.exists()


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_controls_and_pictures__rows_and_panels_beside_the_model(voc, tmp_path, capsys, recipe):
    out = tmp_path / "run" / "results.jsonl"
    warmup = ("--warmup-steps", "1", "--probe", "linear") if recipe == "paper" else ()
    arguments = [*common(voc, out), "--recipe", recipe, *warmup, *SMALL, "--lr", "0.01"]
    for name in ("clip-ft", "cliptex"):
        extra = ("--controls",) if name == "clip-ft" else ()
        options = ("--name", name, "--pictures", "2", "--seeds", "0", "1", *extra)
        code, _, err = run(capsys, *arguments, *options)
        assert code == 0, err
    rows = [row for row in rows_of(out) if row["metric"] == "miou"]
    assert [(row["model"], row["seed"]) for row in rows] == [
        ("clip-ft", 0),
        ("clip-ft", 1),
        ("random-init", 0),
        ("random-init", 1),
        ("pixels", 0),
        ("pixels", 1),
        ("mean prediction", 0),
        ("cliptex", 0),
        ("cliptex", 1),
    ]
    prints = [row["protocol"]["encoder_sha256"] for row in rows[:6]]
    assert len(set(prints)) == 4, "random weights are others for each seed"
    (panel,) = read_panels(out.parent / "panels")
    assert panel.columns == ("image", "ground truth", "clip-ft", "cliptex")
    write_report(out.parent, out.parent / "page.html", title="t")
    text = (out.parent / "page.html").read_text()
    assert text.count('<tr class="control">') == 3
    assert "random weights of CLIP-FT</td>" in text and "mean answer of CLIP-FT</td>" in text
    owners = [row["protocol"].get("control_of") for row in rows]
    whose = {"model": "clip-ft", "checkpoint": rows[0]["checkpoint"]}
    assert owners == [None] * 2 + [whose] * 5 + [None] * 2


def test_pictures__not_of_classes(voc, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    arguments = ["--model", "playroom", "--dataset", "folder", "--root", str(voc)]
    code, _, err = run(capsys, *arguments, "--out", str(out), "--pictures", "2")
    assert code == 2 and "--pictures" in err


def test_head__that_is_added_can_be_asked_for(voc, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(HEADS, "two-layers", HEADS["linear"])
    out, root = tmp_path / "r.jsonl", str(voc)
    words = ["probe", "--model", "playroom", "--dataset", "voc", "--root", root, "--out", str(out)]
    words += ["--recipe", "small", "--probe", "two-layers", "--resolution", "32", "--epochs", "1"]
    assert main([*words, "--warmup-steps", "0"]) == 0, capsys.readouterr().err
    assert {row.probe for row in read_results(out)} == {"two-layers"}
    words[words.index("two-layers")] = "three-layers"
    assert main(words) == 2
    assert "--probe: three-layers is unknown; choose from linear," in capsys.readouterr().err
