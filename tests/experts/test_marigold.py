"""Marigold normals: a tiny pipeline of the real class, through the real loading code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cliptex.experts.marigold import load_marigold_normals, seeded
from cliptex.experts.torch_expert import Placement
from cliptex.labels.kinds import UnitVector

diffusers = pytest.importorskip("diffusers", reason="the experts extra is not installed")
transformers = pytest.importorskip("transformers", reason="the experts extra is not installed")


def save_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer with nothing but its two special tokens: prompts here are empty."""
    folder.mkdir()
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("marigold")
    torch.manual_seed(0)
    save_tokenizer(root / "words")
    pipeline = diffusers.MarigoldNormalsPipeline(
        unet=diffusers.UNet2DConditionModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            in_channels=8,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
            norm_num_groups=4,
            cross_attention_dim=8,
        ),
        vae=diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
        ),
        scheduler=diffusers.DDIMScheduler(
            prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False
        ),
        text_encoder=transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                hidden_size=8,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                vocab_size=2,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(root / "words", model_max_length=77),
        prediction_type="normals",
        use_full_z_range=True,
        default_denoising_steps=2,
        default_processing_resolution=32,
    )
    pipeline.save_pretrained(root / "tiny")
    return root / "tiny"


def photos() -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [
        noise.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((64, 96), (96, 64), (64, 96))
    ]


def test_tiny_pipeline__is_deterministic_and_independent_of_the_batch(folder: Path) -> None:
    expert = load_marigold_normals(folder)
    assert expert.spec.kind == UnitVector() and len(expert.spec.weights_sha256) == 64
    assert expert.spec.preprocessing["steps"] == 2
    together = [found.label for found in expert.predict(photos())]
    assert [label.shape for label in together] == [(21, 32, 3), (32, 21, 3), (21, 32, 3)]
    for image, label in zip(photos(), together, strict=True):
        assert np.allclose(np.linalg.norm(label, axis=2), 1, atol=1e-5)
        assert label.std(axis=(0, 1)).max() > 0
        torch.manual_seed(int(label.sum()))  # global randomness plays no part
        (alone,) = load_marigold_normals(folder).predict([image])
        assert np.allclose(alone.label, label, atol=1e-3)
    again = [found.label for found in expert.predict(photos())]
    assert all(np.array_equal(a, b) for a, b in zip(together, again, strict=True))


def test_seed__is_the_images_own() -> None:
    first, second = (torch.from_numpy(image).permute(2, 0, 1) / 255 for image in photos()[::2])
    draws = [torch.randn(4, generator=seeded(image)) for image in (first, first.clone(), second)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_half_precision__differs_little(folder: Path) -> None:
    expert = load_marigold_normals(folder, placement=Placement(precision="bfloat16"))
    exact = load_marigold_normals(folder)
    for half, full in zip(expert.predict(photos()), exact.predict(photos()), strict=True):
        assert np.allclose(np.linalg.norm(half.label, axis=2), 1, atol=1e-4)
        assert (half.label * full.label).sum(axis=2).mean() > 0.9


def test_axes__floor_ceiling_and_walls(folder: Path) -> None:
    """Marigold's frame is right, up, towards the camera."""
    expert = load_marigold_normals(folder)
    theirs = [(0, 0, 1), (0, 1, 0), (0, -1, 0), (-1, 0, 0)]
    ours = [(0, 0, 1), (0, 1, 0), (0, -1, 0), (1, 0, 0)]
    plane = torch.tensor(theirs).float().repeat_interleave(8, 0).T[None, :, :, None]
    plane = plane.expand(1, 3, 32, 24)
    expert.network.pipeline = lambda images, **options: SimpleNamespace(prediction=plane)
    label = expert.predict([np.zeros((64, 48, 3), np.uint8)])[0].label
    for row, expected in zip((4, 12, 20, 28), ours, strict=True):
        assert np.allclose(label[row], expected)


def test_another_pipeline__is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="found nothing"):
        load_marigold_normals(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "MarigoldDepthPipeline"}')
    with pytest.raises(ValueError, match="found MarigoldDepthPipeline"):
        load_marigold_normals(tmp_path)
