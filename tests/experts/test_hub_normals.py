"""Normals networks of the hub: tiny ones of the real classes, through the real loading code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cliptex.cli.expert_options import ExpertOptions, load_experts
from cliptex.experts.hub_normals import load_hub_normals
from cliptex.experts.protocol import FRAME_SIGNS
from cliptex.labels.codecs import fitted_size
from cliptex.labels.kinds import UnitVector

transformers = pytest.importorskip("transformers", reason="the experts extra is not installed")

# A facing wall, floor, ceiling and wall on the right: as labels, and in each source's frame.
LABELS = [(0, 0, 1), (0, 1, 0), (0, -1, 0), (1, 0, 0)]
IN_FRAME = {
    "right-down-forward-away": LABELS,
    "right-down-forward-toward": [(0, 0, -1), (0, -1, 0), (0, 1, 0), (-1, 0, 0)],
    "right-up-back-toward": [(0, 0, 1), (0, 1, 0), (0, -1, 0), (-1, 0, 0)],
    "right-down-back-toward": [(0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0)],
}
TIPSV2_FRAME = "right-down-forward-toward"


def sapiens2() -> tuple[Any, Any]:
    config = transformers.Sapiens2Config(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_attention_heads=2,
        image_size=[64, 48],
        num_labels=3,
        head_config={
            "upsample_out_channels": [8, 8],
            "use_pixel_shuffle": True,
            "conv_out_channels": [8],
            "conv_kernel_sizes": [3],
        },
    )
    processor = transformers.Sapiens2ImageProcessor(size={"height": 64, "width": 48}, do_pad=True)
    return transformers.Sapiens2ForNormalEstimation(config), processor


def tipsv2() -> tuple[Any, Any]:
    config = transformers.Tipsv2DptConfig(
        backbone_config={
            "model_type": "tipsv2_vision_model",
            "hidden_size": 8,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "mlp_ratio": 2,
            "image_size": 28,
            "patch_size": 14,
            "out_indices": [1, 2, 3, 4],
            "apply_layernorm": True,
            "reshape_hidden_states": False,
        },
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    processor = transformers.Tipsv2DptImageProcessor(size={"height": 56, "width": 56})
    return transformers.Tipsv2DptForNormalEstimation(config), processor


BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {"sapiens2": sapiens2, "tipsv2": tipsv2}
FRAMES = {"sapiens2": None, "tipsv2": TIPSV2_FRAME}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("checkpoints")

    def build(name: str) -> Path:
        path = root / name
        if not path.exists():
            torch.manual_seed(0)
            network, processor = BUILDERS[name]()
            for parameter in network.parameters():  # tiny initial weights give constant outputs
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
            network.save_pretrained(path)
            processor.save_pretrained(path)
        return path

    return build


@pytest.mark.parametrize("name", BUILDERS)
def test_tiny_checkpoint__gives_unit_normals_of_the_whole_image(folder, name: str) -> None:
    expert = load_hub_normals(folder(name), frame=FRAMES[name])
    assert expert.spec.kind == UnitVector() and len(expert.spec.weights_sha256) == 64
    noise = np.random.default_rng(0)
    images = [
        noise.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((64, 96), (96, 64), (64, 96), (70, 50))
    ]
    together = [found.label for found in expert.predict(images)]
    for image, label in zip(images, together, strict=True):
        assert label.dtype == np.float32 and label.shape[2] == 3
        assert np.allclose(np.linalg.norm(label, axis=2), 1, atol=1e-5)
        assert label.std(axis=(0, 1)).max() > 0
        assert label.shape[:2] == fitted_size(image.shape[:2], max(label.shape))
        (alone,) = expert.predict([image])
        assert np.allclose(alone.label, label, atol=1e-3)
    again = expert.predict(images)
    assert all(np.array_equal(a, b.label) for a, b in zip(together, again, strict=True))


def answer(expert: Any, normals: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The label of an image of `size` where the network says `normals` (h, w, 3)."""
    planes = torch.from_numpy(normals).permute(2, 0, 1)[None].float()
    expert.network.forward = lambda pixel_values: SimpleNamespace(normals=planes)
    return expert.predict([np.zeros((*size, 3), np.uint8)])[0].label


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("frame", FRAME_SIGNS)
def test_axes__of_every_frame_become_the_frame_of_labels(folder, name: str, frame) -> None:
    expert = load_hub_normals(folder(name), frame=frame)
    surfaces = np.repeat(np.array(IN_FRAME[frame]), 16, axis=0).reshape(64, 1, 3)
    label = answer(expert, 7 * np.repeat(surfaces, 48, axis=1), (64, 48))
    assert label.shape == (64, 48, 3)
    for row, expected in zip((8, 24, 40, 56), LABELS, strict=True):
        assert np.allclose(label[row], expected)


def test_sapiens__default_frame_is_right_up_towards_the_camera(folder) -> None:
    expert = load_hub_normals(folder("sapiens2"))
    assert expert.spec.preprocessing["frame"] == "right-up-back-toward"
    label = answer(expert, np.tile([0.6, 0.0, 0.8], (64, 48, 1)), (64, 48))
    assert np.allclose(label, [-0.6, 0, 0.8])


def test_sapiens__padding_is_cut_off_as_in_its_own_post_processing(folder) -> None:
    """An image of 30 x 60 lies in rows 20 to 44 of 64 x 48."""
    expert = load_hub_normals(folder("sapiens2"))
    plane = np.tile([1.0, 0.0, 0.0], (64, 48, 1))
    plane[20:44] = (0, 0, 1)
    assert np.allclose(answer(expert, plane, (30, 60)), (0, 0, 1))
    prepared = expert.adapter.prepare(np.full((30, 60, 3), 255, np.uint8))
    inside = (prepared[0] > prepared[0].min() + 1).any(dim=1).nonzero()
    assert prepared.shape == (3, 64, 48) and (inside.min(), inside.max()) == (20, 43)


def test_frame__from_the_command_line(folder) -> None:
    options = ExpertOptions(frame="right-up-back-toward")
    (expert,) = load_experts([f"hub-normals:{folder('tipsv2')}"], options)
    assert expert.spec.preprocessing["frame"] == "right-up-back-toward"
    assert expert.spec.learnt_from == ("nyu-depth", "nyu-normals", "unknown")
    with pytest.raises(ValueError, match="--frame has no effect: none of playroom:depth"):
        load_experts(["playroom:depth"], options)


def test_refusals(folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="documents the axes of tipsv2_dpt"):
        load_hub_normals(folder("tipsv2"))
    with pytest.raises(ValueError, match="say its frame \\(`frame`\\)"):
        load_experts([f"hub-normals:{folder('tipsv2')}"], ExpertOptions())
    with pytest.raises(ValueError, match="frame 'upside-down' is not one of"):
        load_hub_normals(folder("tipsv2"), frame="upside-down")  # type: ignore[arg-type]
    transformers.GLPNConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="'glpn' are not known; known are sapiens2, tipsv2_dpt"):
        load_hub_normals(tmp_path)
