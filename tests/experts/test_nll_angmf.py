"""NLL-AngMF: the released names and shapes, its arithmetic by hand, and its real loading code."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cliptex.experts.nll_angmf import (
    NllAngmf,
    NllAngmfForm,
    NllAngmfSetup,
    Norm,
    WeightStandardisedConv,
    confidence_from_kappa,
    expected_error,
    load_nll_angmf,
    normalise,
    read,
)

REFERENCE = Path(
    os.environ.get("CLIPTEX_REFERENCE", Path(__file__).parents[3] / "shared" / "reference")
)


def tiny(norm: Norm) -> NllAngmfForm:
    return NllAngmfForm("tf_efficientnet_b0", features=128, hidden=8, norm=norm)


@pytest.mark.parametrize(("norm", "name"), [("batch", "bn"), ("group", "gn")])
def test_names__equal_the_released_networks(norm: Norm, name: str) -> None:
    path = REFERENCE / "checkpoint_keys" / f"nll_angmf_{name}.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with torch.device("meta"):
        state = NllAngmf(NllAngmfForm(norm=norm)).state_dict()
    assert [(k, list(x.shape)) for k, x in state.items()] == list(
        json.loads(path.read_text()).items()
    )


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_expert__real_loading_code(norm: Norm, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = NllAngmf(tiny(norm)).state_dict()
    path = tmp_path / "scannet.pt"
    torch.save({"model": {f"module.{k}": x for k, x in state.items()}}, path)
    expert = load_nll_angmf(path, setup=NllAngmfSetup(tiny("batch"), (64, 96)))
    assert (
        expert.spec.learnt_from
        == {
            "batch": ("scannet",),
            "group": ("nyu-depth", "nyu-normals"),
        }[norm]
    )
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in ((50, 80), (90, 45))]
    together = expert.predict(images)
    assert [p.label.shape for p in together] == [(50, 80, 3), (90, 45, 3)]
    for image, found in zip(images, together, strict=True):
        np.testing.assert_allclose(np.linalg.norm(found.label, axis=2), 1, atol=1e-4)
        assert found.confidence is not None and found.confidence.shape == (43, 64)
        assert 0 <= found.confidence.min() <= found.confidence.max() <= 1
        np.testing.assert_allclose(expert.predict([image])[0].label, found.label, atol=1e-3)
    save_file(state, tmp_path / "plain.safetensors")
    plain = load_nll_angmf(
        tmp_path / "plain.safetensors", setup=NllAngmfSetup(tiny("batch"), (64, 96))
    )
    np.testing.assert_array_equal(plain.predict(images)[0].label, together[0].label)
    state.pop("decoder.conv2.bias")
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"scannet.pt.*1 missing \(decoder.conv2.bias\)"):
        load_nll_angmf(path, setup=NllAngmfSetup(tiny("batch"), (64, 96)))


def test_read__keeps_the_frame() -> None:
    walls = {"facing": (0.0, 0.0, 1.0), "floor": (0.0, 1.0, 0.0), "left": (-1.0, 0.0, 0.0)}
    for vector in walls.values():
        normals = torch.tensor(vector).view(3, 1, 1).expand(3, 8, 8)
        label = read({"normals": normals, "confidence": torch.ones(2, 2)}, (8, 8)).label
        np.testing.assert_allclose(label, np.broadcast_to(vector, (8, 8, 3)), atol=1e-6)


@pytest.mark.parametrize("vector", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-0.6, 0.0, 0.8)])
def test_expert__axes_of_the_loaded_network(vector: tuple[float, ...], tmp_path: Path) -> None:
    """A checkpoint that says wall, floor or a wall on the left of everything."""
    state = NllAngmf(tiny("batch")).state_dict()
    last = "decoder.out_conv_res1.6"
    state[f"{last}.weight"].zero_()
    state[f"{last}.bias"].copy_(torch.tensor([*(3 * x for x in vector), 20.0]))
    torch.save({"model": state}, tmp_path / "scannet.pt")
    expert = load_nll_angmf(tmp_path / "scannet.pt", setup=NllAngmfSetup(tiny("batch"), (64, 96)))
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (found,) = expert.predict([image])
    np.testing.assert_allclose(found.label, np.broadcast_to(vector, (40, 60, 3)), atol=1e-6)
    error = float(expected_error(torch.tensor(21.01)))
    assert found.confidence is not None
    np.testing.assert_allclose(found.confidence, 1 - error / (math.pi / 2), rtol=1e-5)


def test_normalise__length_one_and_kappa_above_its_floor() -> None:
    raw = torch.tensor([[3.0, 0.0, 4.0, 2.0], [0.0, 0.0, 0.0, -50.0]]).view(2, 4, 1)
    out = normalise(raw)[:, :, 0]
    torch.testing.assert_close(out[0], torch.tensor([0.6, 0.0, 0.8, 3.01]))
    torch.testing.assert_close(out[1], torch.tensor([0.0, 0.0, 0.0, 0.01]))


def test_expected_error__limits_and_the_density_itself() -> None:
    assert expected_error(torch.tensor(0.0)).item() == pytest.approx(math.pi / 2)
    assert expected_error(torch.tensor(1e4)).item() == pytest.approx(2e-4, rel=1e-3)
    confidence = confidence_from_kappa(torch.tensor([0.0, 1e6]))
    torch.testing.assert_close(confidence, torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)
    angle = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    weight = torch.exp(-2 * angle) * angle.sin()
    mean = float((weight * angle).sum() / weight.sum())
    assert expected_error(torch.tensor(2.0)).item() == pytest.approx(mean, abs=1e-5)


def test_weight_standardisation__mean_zero_deviation_one() -> None:
    conv = WeightStandardisedConv(1, 1, 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2))
    first = conv(torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2))
    assert first.item() == pytest.approx(-1.5 / math.sqrt(5 / 3), rel=1e-4)
