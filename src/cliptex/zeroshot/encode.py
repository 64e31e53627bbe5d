"""Embeddings of pictures and texts by any CLIP, and what zero-shot runs hand back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from cliptex.console import say, track
from cliptex.data.transforms import View, view_image
from cliptex.labels.kinds import Box
from cliptex.models.device import computed_in
from cliptex.models.encoder import nearest_side
from cliptex.per_image import save_per_image
from cliptex.results import Result

WHOLE = View(Box(), False)


class TwoTowers(Protocol):
    """What is asked of a CLIP."""

    def tokenize(self, texts: list[str]) -> Tensor: ...

    def encode_text(self, tokens: Tensor) -> Tensor: ...

    def encode_image(self, images: Tensor) -> Tensor: ...


class ZeroShotConfig(BaseModel):
    """How pictures and texts are encoded.

    resolution: side in pixels of the square that the encoder sees; where its stride does not
        divide it, the nearest multiple.
    crop: squash brings the whole picture to that square, as in the probes; center takes the
        central square of the short side, as CLIP's own evaluation and the authors' library do.
    templates: prompts whose embeddings are averaged per class; `{}` stands for the name.
    seed: written into the rows; nothing here is random.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: int = Field(default=224, gt=0)
    crop: Literal["squash", "center"] = "squash"
    templates: tuple[str, ...] = ("a photo of a {}.",)
    batch_size: int = Field(default=64, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def protocol(self, clip: TwoTowers) -> dict[str, object]:
        """What rows say of how pictures were seen."""
        return {
            "resolution": self.resolution,
            "encoder_resolution": seen_side(clip, self.resolution),
            "crop": self.crop,
            "precision": self.precision,
        }


@dataclass(frozen=True)
class ZeroShotOutcome:
    """Rows, and per metric what each of N test images adds to it, in the images' order.

    See `cliptex.per_image.save_per_image` for the forms it has.
    """

    results: list[Result]
    per_image: dict[str, np.ndarray]

    def value(self, metric: str) -> float:
        """The value of the row with `metric`."""
        return next(row.value for row in self.results if row.metric == metric)

    def save_per_image(self, folder: Path) -> list[Path]:
        """One .npz per row."""
        return [save_per_image(folder, row, self.per_image[row.metric]) for row in self.results]


def rows_of(
    values: Mapping[str, float],
    test: Sized,
    config: ZeroShotConfig,
    protocol: dict[str, object],
    **names: Any,
) -> list[Result]:
    """A row per metric; higher is better. `names`: task, dataset, model, checkpoint, leak."""
    common = {"better": "higher", "n": len(test), "seed": config.seed, "protocol": protocol}
    return [Result(metric=name, value=value, **common, **names) for name, value in values.items()]


@torch.no_grad()
def image_embeddings(
    clip: TwoTowers,
    read: Callable[[int], np.ndarray],
    count: int,
    config: ZeroShotConfig,
    *,
    label: str,
) -> Tensor:
    """L2-normalised embeddings (count, D) float32 of pictures `read(0)`, ..., on the CPU.

    `label` names the model and the test, for progress and for `require_finite`.
    """
    side, device = seen_side(clip, config.resolution), device_of(clip)
    parts = []
    for start in track(range(0, count, config.batch_size), label=label):
        indices = range(start, min(start + config.batch_size, count))
        batch = np.stack([_seen(read(i), config, side) for i in indices])
        images = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float() / 255
        with computed_in(config.precision, device):
            parts.append(clip.encode_image(images).float().cpu())  # of (B, 3, r, r)
        require_finite(parts[-1], "pictures", config, label=label)
    return F.normalize(torch.cat(parts), dim=-1)


@torch.no_grad()
def text_embeddings(
    clip: TwoTowers, texts: Sequence[str], config: ZeroShotConfig, *, label: str
) -> Tensor:
    """L2-normalised embeddings (len(texts), D) float32, on the CPU; `label` as for pictures."""
    parts, device = [], device_of(clip)
    for start in range(0, len(texts), config.batch_size):
        tokens = clip.tokenize(list(texts[start : start + config.batch_size])).to(device)
        with computed_in(config.precision, device):
            parts.append(clip.encode_text(tokens).float().cpu())
        require_finite(parts[-1], "texts", config, label=label)
    return F.normalize(torch.cat(parts), dim=-1)


def token_keys(clip: TwoTowers, texts: Sequence[str]) -> list[bytes]:
    """What the text tower sees of each text: equal where it cannot tell two of them apart."""
    return [row.tobytes() for row in clip.tokenize(list(texts)).cpu().numpy()]


def say_ties(tied: int, count: int, queries: str, *, label: str) -> None:
    """Say on standard error how many of `count` queries (a plural) have a tie, if any."""
    if tied:
        say(
            f"{label}: for {tied} of {count} {queries} the right answer ties with wrong ones; each "
            "counts with the probability that a random order of what ties would find it"
        )


def require_finite(embeddings: Tensor, of: str, config: ZeroShotConfig, *, label: str) -> None:
    """ValueError that starts with `label` where `embeddings` of pictures or texts are not finite.

    They would be compared with nothing, and every score on them would be arbitrary.
    """
    if not torch.isfinite(embeddings).all():
        remedy = "" if config.precision == "fp32" else ", or set precision to fp32"
        raise ValueError(
            f"{label}: embeddings of {of} are not finite: the checkpoint has diverged or is "
            f"damaged; take an earlier one{remedy}"
        )


def device_of(clip: TwoTowers) -> torch.device:
    """Where the parameters of `clip` are; the CPU where it has none."""
    first = next(clip.parameters(), None) if isinstance(clip, torch.nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def seen_side(clip: TwoTowers, resolution: int) -> int:
    """The side of the square that the image tower of `clip` sees when asked for `resolution`."""
    stride = getattr(getattr(clip, "image", None), "stride", 1)
    return nearest_side(resolution, stride)


def _seen(image: np.ndarray, config: ZeroShotConfig, side: int) -> np.ndarray:
    view = WHOLE if config.crop == "squash" else _central(*image.shape[:2])
    return view_image(image, view, (side, side))


def _central(height: int, width: int) -> View:
    """The central square of the short side."""
    short = min(height, width)
    down, across = (1 - short / height) / 2, (1 - short / width) / 2
    return View(Box(left=across, top=down, right=1 - across, bottom=1 - down), False)


def evaluating(clip: TwoTowers) -> TwoTowers:
    """`clip` in evaluation mode where it is a module: dropout would make rows irreproducible."""
    return clip.eval() if isinstance(clip, torch.nn.Module) else clip
