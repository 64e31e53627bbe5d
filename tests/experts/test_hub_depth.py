"""Depth networks of the hub: tiny ones of the real classes, through the real loading code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cliptex.experts import hub
from cliptex.experts.hub import NYU, label_size
from cliptex.experts.hub_depth import FAMILIES, learnt_from, load_hub_depth
from cliptex.experts.load import load_expert
from cliptex.experts.torch_expert import TorchExpert
from cliptex.files import sha256_file
from cliptex.labels.kinds import ScalarField

transformers = pytest.importorskip("transformers", reason="the experts extra is not installed")

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
DINOV2 = {
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 28,
    "patch_size": 14,
    "out_indices": [1, 2, 3, 4],
    "apply_layernorm": True,
    "reshape_hidden_states": False,
}
NECK = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
Built = tuple[Any, Any]


def dpt() -> Built:
    config = transformers.DPTConfig(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        **NECK,
    )
    processor = transformers.DPTImageProcessor(
        size={"height": 64, "width": 64},
        resample=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return transformers.DPTForDepthEstimation(config), processor


def dpt_hybrid() -> Built:
    config = transformers.DPTConfig(
        is_hybrid=True,
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        backbone_featmap_shape=[1, 32, 4, 4],
        neck_hidden_sizes=[8, 16, 8, 8],
        neck_ignore_stages=[0, 1],
        readout_type="project",
        fusion_hidden_size=8,
        backbone_config={
            "model_type": "bit",
            "global_padding": "same",
            "layer_type": "bottleneck",
            "embedding_dynamic_padding": True,
            "embedding_size": 8,
            "hidden_sizes": [8, 16, 32],
            "depths": [1, 1, 1],
            "num_groups": 2,
            "out_features": ["stage1", "stage2", "stage3"],
        },
    )
    return transformers.DPTForDepthEstimation(config), dpt()[1]


def dpt_dinov2() -> Built:
    config = transformers.DPTConfig(
        backbone_config=transformers.Dinov2Config(**DINOV2), **NECK, readout_type="project"
    )
    processor = transformers.DPTImageProcessor(
        do_resize=False, do_pad=True, size_divisor=14, **IMAGENET
    )
    return transformers.DPTForDepthEstimation(config), processor


def depth_anything(kind: str = "relative") -> Built:
    config = transformers.DepthAnythingConfig(
        backbone_config=transformers.Dinov2Config(**DINOV2),
        reassemble_hidden_size=8,
        head_hidden_size=4,
        patch_size=14,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
        **NECK,
    )
    processor = transformers.DPTImageProcessor(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14, **IMAGENET
    )
    return transformers.DepthAnythingForDepthEstimation(config), processor


def depth_anything_metric() -> Built:
    return depth_anything("metric")


def zoedepth(heads: tuple[str, ...] = ("nyu",)) -> Built:
    limits = {"nyu": 10.0, "kitti": 80.0}
    config = transformers.ZoeDepthConfig(
        backbone_config={
            "model_type": "beit",
            "image_size": 64,
            "hidden_size": 8,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "use_relative_position_bias": True,
            "reshape_hidden_states": False,
            "out_indices": [1, 2, 3, 4],
        },
        bottleneck_features=8,
        bin_embedding_dim=8,
        num_relative_features=8,
        num_attractors=[2, 2, 2, 2],
        bin_configurations=[
            {"n_bins": 4, "min_depth": 0.001, "max_depth": limits[name], "name": name}
            for name in heads
        ],
        num_patch_transformer_layers=4,
        patch_transformer_hidden_size=128,  # fixed in its classifier
        patch_transformer_intermediate_size=16,
        patch_transformer_num_attention_heads=2,
        **NECK,
    )
    processor = transformers.ZoeDepthImageProcessor(
        size={"height": 64, "width": 96}, ensure_multiple_of=32
    )
    return transformers.ZoeDepthForDepthEstimation(config), processor


def zoedepth_two_heads() -> Built:
    return zoedepth(("nyu", "kitti"))


def depth_pro() -> Built:
    encoder = {
        "model_type": "dinov2",
        "hidden_size": 8,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "image_size": 16,
        "patch_size": 4,
    }
    config = transformers.DepthProConfig(
        fusion_hidden_size=8,
        patch_size=16,
        intermediate_hook_ids=[3, 1],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1],
        scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
        scaled_images_feature_dims=[8, 8, 8],
        use_fov_model=True,
        image_model_config=encoder,
        patch_model_config=encoder,
        fov_model_config=encoder,
    )
    processor = transformers.DepthProImageProcessor(
        size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return transformers.DepthProForDepthEstimation(config), processor


def glpn() -> Built:
    config = transformers.GLPNConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
    )
    processor = transformers.GLPNImageProcessor(do_resize=True, do_rescale=True, size_divisor=32)
    return transformers.GLPNForDepthEstimation(config), processor


def tipsv2() -> Built:
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
        num_depth_bins=8,
        **NECK,
    )
    processor = transformers.Tipsv2DptImageProcessor(size={"height": 56, "width": 56})
    return transformers.Tipsv2DptForDepthEstimation(config), processor


BUILDERS: dict[str, Callable[[], Built]] = {
    "dpt": dpt,
    "dpt-hybrid": dpt_hybrid,
    "dpt-dinov2": dpt_dinov2,
    "depth-anything": depth_anything,
    "depth-anything-metric": depth_anything_metric,
    "zoedepth": zoedepth,
    "zoedepth-two-heads": zoedepth_two_heads,
    "depth-pro": depth_pro,
    "glpn": glpn,
    "tipsv2": tipsv2,
}
RELATIVE = ("dpt", "dpt-hybrid", "depth-anything")


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
            if name in (*RELATIVE, "dpt-dinov2"):  # a ReLU is last, and could be zero everywhere
                next(reversed(list(network.head.parameters()))).data.fill_(1.0)
            network.save_pretrained(path)
            processor.save_pretrained(path)
        return path

    return build


def photos() -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [
        noise.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((64, 96), (96, 64), (64, 96), (70, 50))
    ]


@pytest.mark.parametrize("name", BUILDERS)
def test_tiny_checkpoint__gives_disparity_of_the_whole_image(folder, name: str) -> None:
    expert = load_hub_depth(folder(name))
    unit = "relative disparity" if name in RELATIVE else "1/m"
    assert expert.spec.kind == ScalarField(unit) and expert.spec.name == name
    assert expert.spec.weights_sha256 == sha256_file(folder(name) / "model.safetensors")
    images = photos()
    together = [found.label for found in expert.predict(images)]
    for image, label in zip(images, together, strict=True):
        assert label.dtype == np.float32 and np.isfinite(label).all() and (label >= 0).all()
        assert label.std() > 0
        assert abs(label.shape[0] / label.shape[1] - image.shape[0] / image.shape[1]) < 0.05
        (alone,) = expert.predict([image])
        assert np.allclose(alone.label, label, rtol=1e-3, atol=1e-5)
    again = [found.label for found in load_hub_depth(folder(name)).predict(images)]
    assert all(np.array_equal(a, b) for a, b in zip(together, again, strict=True))


def answer(expert: TorchExpert, **outputs: torch.Tensor) -> np.ndarray:
    """The label of a 64 x 96 image whose network says `outputs`."""
    found = SimpleNamespace(**{name: x[None] for name, x in outputs.items()})
    expert.network.forward = lambda pixel_values: found
    return expert.predict([np.zeros((64, 96, 3), np.uint8)])[0].label


METRES = torch.linspace(0.5, 10, 96).expand(64, 96)


@pytest.mark.parametrize("name", ["dpt-dinov2", "depth-anything-metric", "glpn", "tipsv2"])
def test_metres__become_one_over_metres(folder, name: str) -> None:
    expert = load_hub_depth(folder(name))
    depth = METRES.clone()
    depth[0, :4] = 0
    label = answer(expert, predicted_depth=depth)
    if name == "dpt-dinov2":  # 64 x 96 lies 3 and 1 pixels inside of 70 x 98
        plane = torch.full((70, 98), 1e-3)
        plane[3:67, 1:97] = depth
        label = answer(expert, predicted_depth=plane)
    assert label.shape == (64, 96)
    assert np.isnan(label[0, :4]).all() and np.isfinite(label[1:]).all()
    assert np.allclose(label[5], 1 / METRES[5], rtol=1e-4)


def test_zoedepth__padding_is_cut_off(folder) -> None:
    top, left = int(3 * np.sqrt(64 / 2)), int(3 * np.sqrt(96 / 2))
    plane = torch.full((64 + 2 * top, 96 + 2 * left), 0.01)
    plane[top:-top, left:-left] = METRES
    label = answer(load_hub_depth(folder("zoedepth")), predicted_depth=plane)
    assert label.shape == (64, 96) and np.allclose(label, 1 / METRES, rtol=1e-4)


def test_zoedepth__an_image_picks_its_head_alone(folder) -> None:
    """Dark images vote for one head, bright ones for the other, twice as loudly."""
    expert = load_hub_depth(folder("zoedepth-two-heads"))
    brightness: list[torch.Tensor] = []
    expert.network.register_forward_pre_hook(
        lambda module, args, kwargs: brightness.append(kwargs["pixel_values"].mean(dim=(1, 2, 3))),
        with_kwargs=True,
    )

    def vote(module: Any, args: Any, logits: torch.Tensor) -> torch.Tensor:
        bright = brightness[-1] > 0
        return torch.stack([torch.where(bright, 0, 1), torch.where(bright, 2, 0)], dim=1).float()

    head = expert.network.metric_head
    head.mlp_classifier.register_forward_hook(vote)
    for parameter in head.seed_bin_regressors["kitti"].parameters():
        parameter.add_(2)  # other depths than the first head's
    images = [np.full((64, 96, 3), value, np.uint8) for value in (10, 245)]
    alone = [expert.predict([image])[0].label for image in images]
    together = [found.label for found in expert.predict(images)]
    for single, batched in zip(alone, together, strict=True):
        assert np.allclose(single, batched, rtol=1e-3)
    assert not np.allclose(alone[0], alone[1], rtol=0.1)


@pytest.mark.parametrize("name", RELATIVE)
def test_relative_disparity__is_left_as_it_is(folder, name: str) -> None:
    label = answer(load_hub_depth(folder(name)), predicted_depth=METRES)
    assert np.allclose(label, METRES)


def test_depth_pro__agrees_with_its_own_post_processing(folder) -> None:
    expert = load_hub_depth(folder("depth-pro"))
    raw, angle = torch.linspace(0.1, 2, 96).expand(64, 96), torch.tensor(70.0)
    label = answer(expert, predicted_depth=raw, field_of_view=angle)
    processor = transformers.AutoImageProcessor.from_pretrained(folder("depth-pro"))
    outputs = SimpleNamespace(predicted_depth=raw[None], field_of_view=angle[None])
    (theirs,) = processor.post_process_depth_estimation(outputs, target_sizes=[(64, 96)])
    assert np.allclose(1 / label, theirs["predicted_depth"], rtol=1e-4)


@pytest.mark.parametrize("name", ["dpt", "dpt-hybrid"])
def test_original_resize__keeps_the_aspect(folder, name: str) -> None:
    """480 x 640 at size 64: the height's ratio is nearer 1, so (64, 85.3) -> (64, 96)."""
    expert = load_hub_depth(folder(name))
    image = np.zeros((480, 640, 3), np.uint8)
    assert expert.adapter.prepare(image).shape == (3, 64, 96)
    assert expert.spec.preprocessing["ensure_multiple_of"] == 32
    square = load_hub_depth(folder(name), original_resize=False)
    assert square.adapter.prepare(image).shape == (3, 64, 64)
    with pytest.raises(ValueError, match="original_resize is DPT's"):
        load_hub_depth(folder("glpn"), original_resize=True)


def test_dpt__does_not_scramble_a_square_number_of_tokens(folder) -> None:
    """128 x 512 has 8 x 32 = 16 x 16 tokens: a network that folds them wrongly gives a square."""
    network = load_hub_depth(folder("dpt")).network
    with torch.no_grad():
        assert network(pixel_values=torch.zeros(1, 3, 128, 512)).predicted_depth.shape[1:] == (
            128,
            512,
        )


def test_refusals(folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = transformers.CHMv2Config()
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="chmv2.*known are dpt, "):
        load_hub_depth(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load_hub_depth(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no/such is neither a folder nor"):
        load_hub_depth("no/such")
    with pytest.raises(ValueError, match="no revision 'main'"):
        load_hub_depth(folder("dpt"), revision="main")


def test_checkpoint_of_another_task__is_refused(folder, tmp_path: Path) -> None:
    network, processor = dpt()
    transformers.DPTModel(network.config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no weights for .* parameters of DPTForDepthEstimation"):
        load_hub_depth(tmp_path)


def test_several_weights_files__are_hashed_together(folder, tmp_path: Path) -> None:
    network, processor = dpt()
    network.save_pretrained(tmp_path, max_shard_size="5KB")
    processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    before = load_hub_depth(tmp_path).spec.weights_sha256
    state = network.state_dict()
    next(iter(state.values())).add_(1)
    network.save_pretrained(tmp_path, max_shard_size="5KB")
    assert load_hub_depth(tmp_path).spec.weights_sha256 != before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zoedepth", (*NYU, "unknown")),
        ("zoedepth-two-heads", (*NYU, "kitti", "unknown")),
        ("tipsv2", (*NYU, "unknown")),
        ("dpt", ("unknown",)),
    ],
)
def test_a_renamed_folder_keeps_its_leak_mark(
    folder, name: str, expected: tuple[str, ...], tmp_path: Path
) -> None:
    """The configuration proves some of it; what a folder is called proves nothing is missing."""
    (tmp_path / "dpt-large").symlink_to(folder(name))
    spec = load_hub_depth(tmp_path / "dpt-large").spec
    assert (spec.learnt_from, spec.licence) == (expected, "unknown")


def test_midas_31__learnt_from_nyu() -> None:
    beit = SimpleNamespace(
        model_type="dpt", backbone_config=SimpleNamespace(model_type="beit"), is_hybrid=False
    )
    assert learnt_from(beit) == NYU


def test_a_revision_on_the_command_line(folder, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """ORG/NAME@REVISION is what is fetched; a repository's facts go by its whole id."""
    asked: list[tuple[str, str | None]] = []

    def download(repository: str, revision: str | None) -> Path:
        asked.append((repository, revision))
        return folder("zoedepth")

    monkeypatch.setattr(hub, "_download", download)
    spec = load_expert("hub-depth:Intel/zoedepth-nyu@abc123").spec
    assert asked == [("Intel/zoedepth-nyu", "abc123")]
    assert (spec.source, spec.name) == ("Intel/zoedepth-nyu", "zoedepth-nyu")
    assert (spec.learnt_from, spec.licence) == (NYU, "MIT")
    assert load_expert("hub-depth:Other/zoedepth-nyu").spec.learnt_from == (*NYU, "unknown")
    assert asked[1:] == [("Other/zoedepth-nyu", None)]
    (tmp_path / "a@b").symlink_to(folder("zoedepth"))
    assert load_expert(f"hub-depth:{tmp_path / 'a@b'}").spec.name == "zoedepth"


def test_every_family_is_tested() -> None:
    assert len(FAMILIES) == 9
    assert label_size((480, 640), (384, 384)) == (288, 384)
