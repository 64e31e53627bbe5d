"""Marigold normals (Ke et al.): a latent diffusion pipeline as a deterministic expert."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cliptex.experts.hub import Checkpoint, benchmarks_of, licence_of, open_checkpoint
from cliptex.experts.hub_normals import KIND, normals_reader
from cliptex.experts.protocol import ExpertSpec, Frame
from cliptex.experts.torch_expert import Adapter, Outputs, Placement, TorchExpert
from cliptex.files import load_json
from cliptex.labels.sampling import WHOLE
from cliptex.machine import need

FRAME: Frame = "right-up-back-toward"


class MarigoldNormals(nn.Module):
    """A `MarigoldNormalsPipeline` as a network: images (B, 3, H, W) in [0, 1] -> normals.

    The noise that diffusion starts from is drawn for each image from a generator seeded by the
    image's own bytes, on the CPU: a label depends neither on its batch nor on the device.
    """

    def __init__(self, pipeline: Any, steps: int, resolution: int) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.steps = steps
        self.resolution = resolution
        # Registered so that moving this module moves the pipeline's networks.
        self.networks = nn.ModuleList([pipeline.unet, pipeline.vae, pipeline.text_encoder])

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normals in `FRAME`, the longer side `resolution`."""
        found = self.pipeline(
            list(images),
            num_inference_steps=self.steps,
            processing_resolution=self.resolution,
            match_input_resolution=False,
            batch_size=len(images),  # one list of generators serves the whole batch
            generator=[seeded(image) for image in images],
            output_type="pt",
        )
        return found.prediction


def seeded(image: Tensor) -> torch.Generator:
    """A CPU generator seeded by an image's bytes; image (3, H, W) float32, multiples of 1/255."""
    pixels = (image.cpu() * 255).round().to(torch.uint8).contiguous()
    digest = hashlib.sha256(pixels.numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def load_marigold_normals(
    source: str | Path = "prs-eth/marigold-normals-v1-1",
    *,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    revision: str | None = None,
    steps: int | None = None,
    resolution: int | None = None,
) -> TorchExpert:
    """A `MarigoldNormalsPipeline`, a folder or a hub repository, as an expert.

    Args:
        source: a hub repository, or a folder made by `save_pretrained`.
        placement: device and precision.
        revision: branch, tag or commit of a hub repository.
        steps: of denoising; the pipeline's own default where None.
        resolution: of the longer side in pixels, a multiple of the autoencoder's stride (8); the
            pipeline's own default (768) where None.

    Images of one size share a batch. Raises ValueError where the folder is another pipeline or
    names no default for `steps` or `resolution`, MissingPackage without diffusers; see also
    `open_checkpoint`.
    """
    checkpoint = open_checkpoint(source, revision)
    pipeline = _load_pipeline(checkpoint)
    steps = steps or pipeline.default_denoising_steps
    resolution = resolution or pipeline.default_processing_resolution
    if not steps or not resolution:
        raise ValueError(
            f"{checkpoint.source}: model_index.json names no default_denoising_steps or "
            "default_processing_resolution: pass steps= and resolution="
        )
    spec = ExpertSpec(
        name=checkpoint.name,
        kind=KIND,
        source=checkpoint.source,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256,
        licence=licence_of(checkpoint),
        learnt_from=benchmarks_of(checkpoint),
        preprocessing={
            "resolution": resolution,
            "steps": steps,
            "scheduler": type(pipeline.scheduler).__name__,
            "seed": "sha256 of the image's pixels",
            "frame": FRAME,
        },
    )
    adapter = Adapter(_prepare, _forward, normals_reader(FRAME, lambda size: WHOLE))
    return TorchExpert(spec, MarigoldNormals(pipeline, steps, resolution), adapter, placement)


def _prepare(image: np.ndarray) -> Tensor:
    """(3, H, W) float32 in [0, 1]; the pipeline resizes."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255


def _forward(network: MarigoldNormals, batch: Tensor) -> list[Outputs]:
    return [{"normals": normals} for normals in network(batch)]  # (3, h, w) each


def _load_pipeline(checkpoint: Checkpoint) -> Any:
    library = need("diffusers", extra="diffusers", what="Marigold")
    index = checkpoint.folder / "model_index.json"
    found = load_json(index, "an index of diffusers") if index.is_file() else {}
    name = found.get("_class_name", "nothing")
    if name != "MarigoldNormalsPipeline":
        raise ValueError(
            f"{checkpoint.source}: expected a MarigoldNormalsPipeline in model_index.json, "
            f"found {name}"
        )
    pipeline = library.MarigoldNormalsPipeline.from_pretrained(
        checkpoint.folder, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
