"""Where a probe of one model keeps its state."""

from typing import Any

from cliptex.cli.probe import Probed
from cliptex.probes.options import ProbeOptions
from cliptex.probes.outcome import Naming


def state(tmp_path, model: str, **keys: Any):
    options = ProbeOptions(dataset="nyu-depth", model="x", state=tmp_path)
    one = Probed(
        encoder=keys.pop("encoder", None), naming=Naming(model=model), seeds=(0, 1), **keys
    )
    found = one.state(options)
    assert found is not None
    return found


def test_state__is_named_by_model_and_seeds_of_controls(tmp_path):
    own = tmp_path / "a%2Fb" / "nyu-depth"
    assert state(tmp_path, "a/b") == own / "fast"
    assert state(tmp_path, "a/b", owner=Naming(model="a/b")) == own / "fast" / "0-1"


def test_state__long_names_can_be_made_and_stay_apart(tmp_path):
    folders = [state(tmp_path, "模" * 100 + end) for end in ("", "型")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert folders[0] != folders[1]
