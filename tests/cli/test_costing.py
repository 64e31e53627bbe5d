"""`cliptex probe --dry-run` as it is typed: what is counted follows the options of the run."""

import pytest

from cliptex.cli.app import main


@pytest.fixture
def counted(capsys):
    """Prints the cost of options; the words of its lines by (data, part), one a control."""

    def run(*options: str) -> dict[tuple[str, str], list[str]]:
        words = ["probe", "--model", "playroom", "--recipe", "paper", "--dry-run", *options]
        code = main(words)
        captured = capsys.readouterr()
        assert code == 0, captured.err
        found, data = {}, ""
        for line in captured.out.splitlines()[2:-2]:
            words = line.split()
            if line.startswith(("sum", "0.")):
                continue
            if line[0] != " ":
                data, words = words[1], words[2:]
                found[data, "images"] = words[:5]
                found[data, words[5]] = words[6:]
            else:
                found[data, words[0]] = words[1:]
        return found

    return run


@pytest.fixture
def refused(capsys):
    def run(*options: str) -> str:
        words = ["probe", "--model", "playroom", "--recipe", "paper", "--dry-run", *options]
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


def test_paper__detection_follows_the_options(counted):
    found = counted("--probe", "ssd", "--epochs", "3", "--batch-size", "8", "--seeds", "0", "1")
    assert set(found) == {("coco", "images"), ("coco", "encoder"), ("coco", "ssd")}
    assert found["coco", "images"] == ["117266", "x", "3", "+", "5000"]
    assert found["coco", "ssd"][:2] == ["2", str(3 * (117_266 // 8))]
    half = counted("--probe", "ssd", "--epochs", "3", "--resolution", "160")
    pflop = [float(one["coco", "encoder"][1]) for one in (found, half)]
    assert 4 < pflop[0] / pflop[1] < 6  # pictures of 320 pixels, not 160
    small = counted("--probe", "mask-rcnn", "--recipe", "small")
    assert small["coco", "images"] == ["117266", "x", "4", "+", "5000"]


def test_paper__only_what_is_named_is_counted(counted):
    found = counted("--probe", "pspnet", "ssd", "--recipe", "small")
    assert [key for key in found if key[1] not in ("images", "encoder")] == [
        ("voc", "pspnet"),
        ("ade20k", "pspnet"),
        ("coco", "ssd"),
        ("nyu-depth", "pspnet"),
        ("nyu-normals", "pspnet"),
    ]


def test_paper__detectors_learn_from_augmented_pictures(refused):
    assert "--no-augmentation: detection probes learn from augmented" in refused(
        "--no-augmentation"
    )


def test_val_split__leaves_nothing_to_refit(counted, voc):
    lists = voc / "ImageSets/Segmentation"
    (lists / "some.txt").write_text("0\n1\n2\n")
    (lists / "held.txt").write_text("3\n")
    options = ("--dataset", "voc", "--root", str(voc), "--probe", "linear", "--batch-size", "1")
    options += ("--lr", "0.1", "0.2", "--epochs", "2", "--train-split", "some")
    assert counted(*options)["voc", "linear"][:2] == ["2", str(2 * 2 + 2 * 3)]
    assert counted(*options, "--val-split", "held")["voc", "linear"][:2] == ["2", str(2 * 3)]


def test_features__pictures_are_encoded_once(counted, refused):
    options = ("--probe", "linear", "--no-augmentation", "--epochs", "5")
    live = counted(*options)["ade20k", "encoder"]
    options += ("--features", "folder", "--features-gib", "100")
    stored = counted(*options)["ade20k", "encoder"]
    rounds = (5 * 20_210 + 2_000) / (20_210 + 2_000)
    assert float(live[1]) / float(stored[1]) == pytest.approx(rounds, rel=0.05)
    said = refused(*options[:-1], "1")
    assert "--features-gib: features of voc take 3.88 GiB, more than 1; raise it" in said


def test_controls__are_probed_too(counted):
    found = counted("--probe", "ssd", "--recipe", "small", "--seeds", "0", "1", "2", "--controls")
    model, random = found["coco", "encoder"], found["coco", "random-init"]
    assert float(random[1]) == pytest.approx(3 * float(model[1]), rel=0.01)  # anew for each seed
    assert int(random[0]) == 3 * int(model[0]) and found["coco", "pixels"][1] == "0.00"


def test_hours__follow_precision_and_gpu(capsys):
    def hours(*options: str) -> tuple[list[str], float]:
        words = ["probe", "--model", "playroom", "--recipe", "small", "--dry-run", *options]
        assert main([*words, "--probe", "mask-rcnn", "--epochs", "400"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [line.split()[-1] for line in lines[2:4]], float(lines[4].split()[-1])

    precisions, auto = hours()
    assert precisions == ["bf16", "fp32"]
    precisions, exact = hours("--precision", "fp32")
    assert precisions == ["fp32", "fp32"]
    precisions, fast = hours("--precision", "tf32", "--head-precision", "tf32")
    assert precisions == ["tf32", "tf32"]
    assert exact / fast == pytest.approx(156 / 19.5, rel=0.05) and fast < auto < exact
    own = hours("--precision", "fp32", "--peak-tflops", "39", "39", "39", "--utilisation", "0.7")
    assert exact / own[1] == pytest.approx(4, rel=0.05)


def test_tf32__is_refused_where_there_is_none(capsys, voc):
    for option in ("--precision", "--head-precision"):
        words = ["probe", "--model", "playroom", "--dataset", "voc", "--root", str(voc)]
        assert main([*words, "--device", "cpu", "--out", "r.jsonl", option, "tf32"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"`{option} tf32`: cpu has no TF32" in line
