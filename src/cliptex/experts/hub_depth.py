"""Any depth network of the Hugging Face Hub that transformers can load, as an expert.

The networks differ in what they put out: inverse depth up to an unknown scale and shift, metres,
or inverse depth for a camera of one image width of focal length. Labels are disparity in all cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cliptex.experts.hub import (
    NYU,
    Checkpoint,
    benchmarks_of,
    by_name,
    centred_box,
    cut_out,
    describe_processor,
    import_transformers,
    label_size,
    licence_of,
    load_config,
    load_network,
    load_processor,
    network_input,
    open_checkpoint,
    resized_size,
)
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.experts.torch_expert import Adapter, Outputs, Placement, TorchExpert
from cliptex.labels.kinds import Box, ScalarField
from cliptex.labels.sampling import WHOLE

Measure = Literal["relative disparity", "m", "1/m per focal length"]
Padding = Literal["none", "centred", "reflected"]
DISPARITY_RANGE = (1e-4, 1e4)
"""1/m; what Depth Pro's own post-processing clamps to."""
ORIGINAL_MULTIPLE = 32


@dataclass(frozen=True)
class DepthFamily:
    """What a family's `predicted_depth` measures, and how its processor may pad an image."""

    measure: Measure
    padding: Padding = "none"


FAMILIES: dict[str, DepthFamily] = {
    "dpt": DepthFamily("relative disparity", "centred"),  # MiDaS: BEiT, Swin, ViT, hybrid
    "dpt with dinov2": DepthFamily("m", "centred"),  # heads fitted to NYU or KITTI depth
    "depth_anything relative": DepthFamily("relative disparity", "centred"),
    "depth_anything metric": DepthFamily("m", "centred"),  # sigmoid * max_depth
    "depth_pro": DepthFamily("1/m per focal length"),
    "depth_pro without field of view": DepthFamily("relative disparity"),
    "glpn": DepthFamily("m"),  # sigmoid * max_depth
    "tipsv2_dpt": DepthFamily("m"),
    "zoedepth": DepthFamily("m", "reflected"),
}


def load_hub_depth(
    source: str | Path,
    *,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    revision: str | None = None,
    original_resize: bool | None = None,
) -> TorchExpert:
    """An `AutoModelForDepthEstimation` checkpoint, a folder or a hub repository, as an expert.

    Labels are ScalarField("1/m") where the network knows metres, else ("relative disparity").

    Args:
        source: such as "Intel/dpt-large", or a folder made by `save_pretrained`.
        placement: device and precision.
        revision: branch, tag or commit of a hub repository.
        original_resize: DPT only: keep the aspect, sides multiples of 32, instead of a square.
            The side whose ratio to the processor's size is nearer 1 decides, as in Ranftl et al.'s
            own code. By default True for the networks of that paper (Intel/dpt-large and
            Intel/dpt-hybrid-midas), else False.

    Raises ValueError for a network whose output is not known or not depth, or for
    `original_resize` of another network than DPT; see also `open_checkpoint`.
    """
    checkpoint = open_checkpoint(source, revision)
    config = load_config(checkpoint)
    family = FAMILIES[family_of(config, checkpoint.source)]
    changes = _resize_rule(config, original_resize)
    processor = load_processor(checkpoint, **changes)
    auto_class = import_transformers().AutoModelForDepthEstimation
    network = load_network(checkpoint, auto_class, config)
    if config.model_type == "dpt" and _is_first_dpt(config):
        _tell_dpt_its_grid(network)
    kind = ScalarField(
        "relative disparity" if family.measure == "relative disparity" else "1/m",
    )
    adapter = Adapter(
        prepare=lambda image: network_input(processor, image),
        forward=_one_by_one if _votes_as_a_batch(config) else _forward,
        read=_reader(kind, family, _area(processor, family)),
    )
    spec = _spec(checkpoint, kind, processor, family)
    spec = replace(spec, learnt_from=benchmarks_of(checkpoint, learnt_from(config)))
    return TorchExpert(spec, network, adapter, placement)


def family_of(config: Any, source: str) -> str:
    """The key of `FAMILIES` for a transformers configuration; ValueError naming all otherwise."""
    key = config.model_type
    if key == "dpt":
        backbone = getattr(config, "backbone_config", None)
        if getattr(backbone, "model_type", "").startswith("dinov2"):
            key = "dpt with dinov2"
    elif key == "depth_anything":
        key = f"depth_anything {config.depth_estimation_type}"
    elif key == "depth_pro" and not config.use_fov_model:
        key = "depth_pro without field of view"
    if key not in FAMILIES:
        raise ValueError(
            f"{source}: the output of networks of type {config.model_type!r} is not known; "
            f"known are {', '.join(FAMILIES)}"
        )
    return key


def learnt_from(config: Any) -> tuple[str, ...]:
    """Benchmarks whose images a network must have learnt from, by what its configuration says.

    ZoeDepth's heads are called by their training sets; MiDaS 3.1 (BEiT and Swin v2 backbones)
    names NYU among its own, and TIPSv2's heads were fitted to it.
    """
    if config.model_type == "zoedepth":
        return by_name(" ".join(head["name"] for head in config.bin_configurations))
    backbone = getattr(getattr(config, "backbone_config", None), "model_type", "")
    midas_31 = config.model_type == "dpt" and backbone in ("beit", "swinv2")
    return NYU if midas_31 or config.model_type == "tipsv2_dpt" else ()


def _resize_rule(config: Any, original_resize: bool | None) -> dict[str, object]:
    """Changes to the processor's configuration."""
    is_dpt = config.model_type == "dpt"
    if original_resize and not is_dpt:
        raise ValueError(f"original_resize is DPT's rule, the network is {config.model_type}")
    if original_resize is None:
        original_resize = is_dpt and _is_first_dpt(config)
    if not original_resize:
        return {}
    return {"keep_aspect_ratio": True, "ensure_multiple_of": ORIGINAL_MULTIPLE, "resample": 3}


def _is_first_dpt(config: Any) -> bool:
    """A plain or hybrid ViT, as in Ranftl et al. 2021; MiDaS 3.1 and DINOv2 name a backbone."""
    return config.is_hybrid or config.backbone_config is None


def _tell_dpt_its_grid(network: Any) -> None:
    """Let transformers' DPT take images that are not square.

    Without the grid its neck folds the tokens into a square: an error for most shapes, and a
    scrambled image where the number of tokens happens to be a square (288 x 512: 24 * 24).
    """
    grid: list[int] = []
    patch = network.config.patch_size

    def remember(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        grid[:] = [side // patch for side in kwargs["pixel_values"].shape[-2:]]

    network.register_forward_pre_hook(remember, with_kwargs=True)
    network.neck.register_forward_pre_hook(lambda module, args: (args[0], *grid))
    if network.config.is_hybrid:
        network.dpt.embeddings.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {**kwargs, "interpolate_pos_encoding": True}),
            with_kwargs=True,
        )


def _area(processor: Any, family: DepthFamily) -> Callable[[tuple[int, int]], Box]:
    """Which part of the network's plane an image of a size (H, W) covers."""

    def area(size: tuple[int, int]) -> Box:
        if family.padding == "none" or not getattr(processor, "do_pad", False):
            return WHOLE
        if family.padding == "reflected":
            # ZoeDepth: 3 * sqrt(side / 2) reflected pixels on either side, before the resize.
            padded = tuple(side + 2 * int(3 * math.sqrt(side / 2)) for side in size)
            return centred_box(size, (padded[0], padded[1]))
        return centred_box(*resized_size(processor, size))

    return area


def _forward(network: Any, batch: Tensor) -> list[Outputs]:
    """Depth (h, w) of each image, and for Depth Pro the horizontal field of view () in degrees."""
    outputs = network(pixel_values=batch)
    depths = outputs.predicted_depth  # (B, h, w)
    angles = getattr(outputs, "field_of_view", None)  # (B,)
    if angles is None:
        return [{"depth": depth} for depth in depths]
    return [{"depth": depth, "angle": angle} for depth, angle in zip(depths, angles, strict=True)]


def _votes_as_a_batch(config: Any) -> bool:
    """ZoeDepth with several heads: transformers sums the images' votes on which head answers."""
    return config.model_type == "zoedepth" and len(config.bin_configurations) > 1


def _one_by_one(network: Any, batch: Tensor) -> list[Outputs]:
    """As `_forward`, an image at a time, so that no image has a say in another's label."""
    return [outputs for image in batch for outputs in _forward(network, image[None])]


def to_disparity(found: Outputs, measure: Measure) -> Tensor:
    """(h, w) float32, larger = nearer; NaN where metres are not positive.

    Depth Pro gives inverse depth times focal length over image width, which is 0.5 / tan(angle/2).
    """
    depth = found["depth"]
    if measure == "m":
        return torch.where(depth > 0, 1 / depth, torch.nan)
    if measure == "1/m per focal length":
        widths_per_focal_length = 2 * torch.tan(torch.deg2rad(found["angle"]) / 2)
        return (depth * widths_per_focal_length).clamp(*DISPARITY_RANGE)
    return depth


def _reader(
    kind: ScalarField, family: DepthFamily, area: Callable[[tuple[int, int]], Box]
) -> Callable[[Outputs, tuple[int, int]], Prediction]:
    def read(found: Outputs, size: tuple[int, int]) -> Prediction:
        disparity = kind.check(to_disparity(found, family.measure).numpy())
        part, box = cut_out(disparity, area(size))
        return Prediction(kind.sample(part, box, label_size(size, part.shape)))

    return read


def _spec(
    checkpoint: Checkpoint, kind: ScalarField, processor: Any, family: DepthFamily
) -> ExpertSpec:
    return ExpertSpec(
        name=checkpoint.name,
        kind=kind,
        source=checkpoint.source,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256,
        licence=licence_of(checkpoint),
        preprocessing={**describe_processor(processor), "output": family.measure},
    )
