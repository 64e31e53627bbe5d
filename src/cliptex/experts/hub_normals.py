"""Any surface normals network of the Hugging Face Hub that transformers can load, as an expert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cliptex.experts.hub import (
    NYU,
    benchmarks_of,
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
)
from cliptex.experts.protocol import FRAME_SIGNS, ExpertSpec, Frame, Prediction
from cliptex.experts.torch_expert import Adapter, Outputs, Placement, TorchExpert
from cliptex.labels.kinds import Box, UnitVector
from cliptex.labels.sampling import WHOLE

KIND = UnitVector()


@dataclass(frozen=True)
class NormalsFamily:
    """The frame of a family's normals, and what all its checkpoints learnt from.

    frame: None where no source documents it; the caller must then say it.
    """

    frame: Frame | None
    learnt_from: tuple[str, ...] = ()


FAMILIES: dict[str, NormalsFamily] = {
    # Neither model card names its axes. Sapiens draws normals right, up, towards the camera;
    # TIPSv2's heads were fitted to NYU.
    "sapiens2": NormalsFamily("right-up-back-toward"),
    "tipsv2_dpt": NormalsFamily(None, NYU),
}


def load_hub_normals(
    source: str | Path,
    *,
    frame: Frame | None = None,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    revision: str | None = None,
) -> TorchExpert:
    """An `AutoModelForNormalEstimation` checkpoint, a folder or a hub repository, as an expert.

    Args:
        source: such as "facebook/sapiens2-normal-0.4b", or a folder made by `save_pretrained`.
        frame: the axes of the network's output; by default what `FAMILIES` says of its type.
        placement: device and precision.
        revision: branch, tag or commit of a hub repository.

    Raises ValueError for a network of an unknown type, or without a known frame where none is
    given; see also `open_checkpoint`.
    """
    checkpoint = open_checkpoint(source, revision)
    config = load_config(checkpoint)
    family, frame = _family(config.model_type, checkpoint.source, frame)
    processor = load_processor(checkpoint, **_padded(config.model_type))
    auto_class = import_transformers().AutoModelForNormalEstimation
    network = load_network(checkpoint, auto_class, config)
    spec = ExpertSpec(
        name=checkpoint.name,
        kind=KIND,
        source=checkpoint.source,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256,
        licence=licence_of(checkpoint),
        preprocessing={**describe_processor(processor), "frame": frame},
        learnt_from=benchmarks_of(checkpoint, family.learnt_from),
    )
    adapter = Adapter(
        prepare=lambda image: network_input(processor, image),
        forward=_forward,
        read=normals_reader(frame, lambda size: _area(processor, size)),
    )
    return TorchExpert(spec, network, adapter, placement)


def normals_reader(
    frame: Frame, area: Callable[[tuple[int, int]], Box]
) -> Callable[[Outputs, tuple[int, int]], Prediction]:
    """Reads {"normals": (3, h, w)} in `frame`, of any length, into a label of the image.

    `area` says which part of the network's plane an image of a size (H, W) covers.
    """
    signs = np.array(FRAME_SIGNS[frame], dtype=np.float32)

    def read(found: Outputs, size: tuple[int, int]) -> Prediction:
        plane: Tensor = found["normals"].permute(1, 2, 0)  # (h, w, 3)
        normals = KIND.check(plane.numpy()) * signs
        part, box = cut_out(normals, area(size))
        return Prediction(KIND.sample(part, box, label_size(size, part.shape)))

    return read


def _family(model_type: str, source: str, frame: Frame | None) -> tuple[NormalsFamily, Frame]:
    """What is known of a type of network, and its frame."""
    family = FAMILIES.get(model_type)
    if family is None:
        raise ValueError(
            f"{source}: networks of type {model_type!r} are not known; known are "
            f"{', '.join(FAMILIES)}"
        )
    frame = frame or family.frame
    if frame is None:
        raise ValueError(
            f"{source}: no source documents the axes of {model_type} networks; look at a wall, "
            f"a floor and a ceiling and say its frame (`frame`), one of {', '.join(FRAME_SIGNS)}"
        )
    if frame not in FRAME_SIGNS:
        raise ValueError(f"frame {frame!r} is not one of {', '.join(FRAME_SIGNS)}")
    return family, frame


def _padded(model_type: str) -> dict[str, object]:
    """Changes to the processor: Sapiens normals keep the aspect, its class default does not."""
    return {"do_pad": True} if model_type == "sapiens2" else {}


def _forward(network: Any, batch: Tensor) -> list[Outputs]:
    return [{"normals": normals} for normals in network(pixel_values=batch).normals]  # (3, h, w)


def _area(processor: Any, size: tuple[int, int]) -> Box:
    """The image in the processor's plane: all of it, or centred with its aspect kept."""
    if not getattr(processor, "do_pad", False):
        return WHOLE
    plane = (processor.size["height"], processor.size["width"])
    ratio = min(side / length for side, length in zip(plane, size, strict=True))
    inner = (max(1, int(size[0] * ratio)), max(1, int(size[1] * ratio)))
    return centred_box(inner, plane)
