from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from cliptex.training.config import TrainConfig, changed, differences, dump_config, load_config


def test_yaml_holds_every_key_and_comes_back_equal(configure, tmp_path: Path) -> None:
    config = configure("depth", "segmentation", clip_grad=0.5)
    dump_config(config, tmp_path / "config.yaml")
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert set(written) == set(TrainConfig.model_fields)
    assert load_config(tmp_path / "config.yaml") == config


def test_yaml_with_an_unknown_key_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {name: playroom}\ndata: web\nsteps: 3\nlearning_rate: 1\n")
    with pytest.raises(ValueError, match="learning_rate") as error:
        load_config(path)
    assert str(path) in str(error.value)


def test_only_what_moves_weights_counts_as_a_difference(configure) -> None:
    one = configure("depth")
    assert differences(one, configure("depth", workers=3, cache_bytes=0, log_every=7)) == []
    assert differences(one, configure("depth", lr=1e-4, seed=1)) == ["lr", "seed"]


def test_weights_of_other_tasks_are_no_difference(configure) -> None:
    # An old config.yaml of CLIP-FT lists those of Table 7.
    listed = {"clip": 1.0, "segmentation": 0.1, "depth": 1.0, "normals": 1.0}
    old = configure("depth", loss_weights=listed)
    assert differences(old, configure("depth", loss_weights={"clip": 1.0, "depth": 1.0})) == []
    changed = configure("depth", loss_weights={**listed, "depth": 2.0})
    assert differences(old, changed) == ["loss_weights"]
    augmented = [
        configure(range_augment=(40, 20), loss_weights={"clip": 1.0, **more})
        for more in ({}, {"range_augment": 1.0}, {"range_augment": 0.5})
    ]
    assert differences(augmented[0], augmented[1]) == []
    assert differences(augmented[0], augmented[2]) == ["loss_weights"]


def test_weights_are_those_of_the_terms_that_the_run_has(configure, tmp_path: Path) -> None:
    """Configurations of earlier versions list all of Table 7."""
    table_7 = {"clip": 1.0, "segmentation": 0.1, "depth": 1.0, "normals": 1.0}
    config = configure("depth", loss_weights=table_7)
    assert config.loss_weights == {"clip": 1.0, "depth": 1.0}
    assert configure(range_augment=(40, 20)).loss_weights == {"clip": 1.0, "range_augment": 1.0}
    path = tmp_path / "config.yaml"
    dump_config(config, path)
    assert load_config(path) == config
    listed = path.read_text().replace("  depth: 1.0\n", "  depth: 1.0\n  segmentation: 0.1\n", 1)
    path.write_text(listed)
    assert load_config(path) == config
    tasks = {"segmentation": "exact-segmentation"}
    assert changed(config, {"tasks": tasks}).loss_weights == {"clip": 1.0, "segmentation": 0.1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "exactly one of `steps`, `epochs`, `samples`"),
        ({"epochs": 2.0}, "exactly one of `steps`, `epochs`, `samples`"),
        ({"tasks": {"depth": "dpt"}}, "`labels`: give the folder"),
        ({"loss_weights": {"depth": 1.0}}, "give a weight for ['clip']"),
        ({"loss_weights": {"clip": float("nan")}}, "finite"),
        ({"loss_weights": {"clip": 1.0, "dpeth": 5}}, "'dpeth' is unknown (did you mean depth?)"),
        ({"tasks": {"edge": "sobel"}, "labels": "x"}, "'edge' is unknown (did you mean edges?)"),
        ({"tasks": {"detection": "sobel"}, "labels": "x"}, "there are depth, edges, normals"),
        ({"resolution": ()}, "resolution"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"learning": 3}, "learning"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_refusals(configure, changes, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        configure(**changes)


def test_frozen(configure) -> None:
    with pytest.raises(ValueError, match="frozen"):
        configure().lr = 1.0
