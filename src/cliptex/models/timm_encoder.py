"""timm's image towers as encoders, at any input size where the architecture allows one.

At the native size an embedding equals the tower's own output bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from cliptex.models.encoder import Features, ImageEncoder, nearest_side, one_side

FINEST = 4  # stride of the first stage that detectors read
COARSEST = 64


class TimmEncoder(ImageEncoder):
    """A timm trunk under open_clip's adapter: CNNs, hierarchical and plain transformers.

    Where the trunk has stages, their maps at strides from 4 come beside the last one. Raises
    ValueError, naming the architecture, for one without a map of regular cells.
    """

    def __init__(
        self,
        tower: TimmModel,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        pool_step: int = 1,
    ) -> None:
        super().__init__(mean, std)
        self.tower = tower
        self.pool_step = pool_step  # of a dilated map, which places are pooled
        self.image_size = one_side(tower.image_size, "image_size")
        self.prefix: int = getattr(tower.trunk, "num_prefix_tokens", 0)
        self._stages: dict[int, int] = {}  # stride -> index among timm's intermediates
        training = tower.training
        tower.eval()
        try:
            _allow_any_size(tower.trunk)
            self._measure()
        except Exception as error:  # whatever a third party's forward may raise
            raise ValueError(
                f"{self.name} gives no dense map ({_reason(error)}): use another model"
            ) from error
        tower.train(training)

    @property
    def name(self) -> str:
        """How timm calls the architecture, for messages."""
        told: Any = getattr(self.tower.trunk, "default_cfg", None) or {}
        return f"timm's {told.get('architecture') or type(self.tower.trunk).__name__}"

    def _measure(self) -> None:
        """Learn strides and widths from a blank image: timm has no one place that says them."""
        trunk: Any = self.tower.trunk
        blank = torch.zeros(1, 3, *[_whole_patches(trunk, self.image_size)] * 2)
        with torch.no_grad():
            x = trunk.forward_features(blank)
            dense = self._dense(x, blank)
            self.stride = _stride(trunk, blank.shape, dense.shape)
            self._stages = _stages(trunk, blank, self.stride)
            pooled = self._pool(x)
            _fit_projection(self.tower, pooled)
            self.embed_dim = self.tower.head(pooled).shape[1]
            side = nearest_side(self.image_size, self.stride)
            if self._stages or side != blank.shape[-1]:  # else it has just been done
                self._try(side)
        self.channels = dense.shape[1]
        self.pooled_channels = pooled.shape[1]

    def _try(self, side: int) -> None:
        """One pass at the side nearest to the native one that the stride divides."""
        try:
            self._features(torch.zeros(1, 3, side, side))
        except Exception as error:
            if side == self.image_size:
                raise
            raise ValueError(
                f"its only side is {self.image_size}, which its stride of {self.stride} does not "
                f"divide"
            ) from error

    def features(self, images: Tensor) -> Features:
        """(B, 3, H, W) -> trunk features -> maps and pooled features.

        ValueError where the architecture takes no images of this size.
        """
        height, width = images.shape[-2:]
        try:
            return self._features(images)
        except Exception as error:
            native = height == width == self.image_size
            if native or isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(
                f"{self.name} takes no images of {height}x{width} ({_reason(error)}): use its "
                f"own size, {self.image_size}x{self.image_size} (`resolution={self.image_size}`)"
            ) from error

    def _features(self, images: Tensor) -> Features:
        trunk: Any = self.tower.trunk
        cells = {
            s: (images.shape[-2] // s, images.shape[-1] // s) for s in (*self._stages, self.stride)
        }
        with _rotary_positions(trunk, cells[self.stride]):
            if self._stages:
                wanted = list(self._stages.values())
                x, inner = trunk.forward_intermediates(images, indices=wanted, output_fmt="NCHW")
            else:
                x, inner = trunk.forward_features(images), []
            pooled = self._pool(x)
        embedding = self.tower.head(pooled)
        if pooled.ndim == 4:  # the adapter pools by attention: see ResNetEncoder
            pooled = pooled.mean((2, 3))
        maps = {**dict(zip(self._stages, inner, strict=True)), self.stride: self._dense(x, images)}
        for stride, found in maps.items():
            if found.shape[-2:] != cells[stride]:
                raise ValueError(
                    f"its map has {tuple(found.shape[-2:])} cells, not {cells[stride]}"
                )
        return Features(embedding, pooled, maps)

    def _pool(self, x: Any) -> Tensor:
        trunk: Any = self.tower.trunk
        step = self.pool_step
        return trunk.forward_head(x if step == 1 else x[:, :, ::step, ::step])

    def _dense(self, x: Any, images: Tensor) -> Tensor:
        """The trunk's last features as (B, C, h, w); ValueError for what is no map."""
        if not isinstance(x, Tensor) or x.ndim not in (3, 4):
            what = tuple(x.shape) if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ValueError(f"its features are {what}, not one map")
        if x.ndim == 3:  # (B, prefix + h * w, C), rows first
            cells = x.shape[1] - self.prefix
            height = round((cells * images.shape[2] / images.shape[3]) ** 0.5)
            if height == 0 or cells % height:
                raise ValueError(f"its features are {cells} tokens, which fill no grid")
            return x[:, self.prefix :].unflatten(1, (height, -1)).permute(0, 3, 1, 2)
        if str(getattr(self.tower.trunk, "output_fmt", "NCHW")).endswith("NHWC"):
            return x.permute(0, 3, 1, 2)
        return x


def _reason(error: Exception) -> str:
    """The first line of what a third party said."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _whole_patches(trunk: Any, side: int) -> int:
    """The part of `side` that a transformer's patches cover: 378 of SigLIP SO400M's 384 pixels."""
    patch = getattr(getattr(trunk, "patch_embed", None), "patch_size", None)
    pixels = patch if isinstance(patch, int) else max(patch or (1,))
    return side // pixels * pixels


def _stride(trunk: Any, images: torch.Size, dense: torch.Size) -> int:
    """Pixels per cell: what timm says where it agrees with the map, else a whole number that does.

    CNNs round up what the stride does not divide (EfficientNet-B1 has 240 pixels and 8 cells of
    32); several strides fit then, and theirs is a power of two.
    """
    side, cells = images[-1], dense[-1]
    told = [info["reduction"] for info in getattr(trunk, "feature_info", None) or []][-1:]
    fitting = [s for s in range(1, COARSEST + 1) if -(-side // s) == cells]
    whole = [s for s in fitting if s & (s - 1) == 0 or s * cells == side]
    whole += [s for s in told if s in fitting]
    if not whole or dense[-2] != cells:
        raise ValueError(f"its map has {tuple(dense[-2:])} cells, of no whole number of pixels")
    return whole[-1]


def _fit_projection(tower: TimmModel, pooled: Tensor) -> None:
    """Widen the adapter's projection where the trunk's head has a layer of its own before it.

    open_clip takes the width of the map for it, and such a tower could not run.
    """
    proj = getattr(tower.head, "proj", None)
    if pooled.ndim == 2 and isinstance(proj, nn.Linear) and proj.in_features != pooled.shape[1]:
        bias = proj.bias is not None
        tower.head.proj = nn.Linear(pooled.shape[1], proj.out_features, bias=bias)  # pyright: ignore


def _stages(trunk: Any, blank: Tensor, last: int) -> dict[int, int]:
    """Which of timm's intermediates lie at half the stride `last`, at a quarter and so on to 4.

    Of several at one stride the last one counts. Finest first, and after them the last of all,
    up to which the trunk must run; empty for plain transformers.
    """
    if not hasattr(trunk, "forward_intermediates"):
        return {}
    inner = trunk.forward_intermediates(blank, output_fmt="NCHW", intermediates_only=True)
    found = {-(-blank.shape[-1] // x.shape[-1]): index for index, x in enumerate(inner)}
    stages: dict[int, int] = {}
    stride = last // 2
    while stride >= FINEST and stride in found:
        stages = {stride: found[stride], **stages}
        stride //= 2
    return {**stages, last: len(inner) - 1} if stages else {}


def _allow_any_size(trunk: Any) -> None:
    """Let a timm ViT or Swin take other sizes than its own; CNNs do so anyway.

    A Swin has as many windows of the trained side as there are then.
    """
    for block in trunk.modules():
        if hasattr(block, "dynamic_mask"):
            block.dynamic_mask = True
            trunk.patch_embed.strict_img_size = False
    embed: Any = getattr(trunk, "patch_embed", None)
    if hasattr(trunk, "dynamic_img_size") and hasattr(embed, "output_fmt"):
        trunk.dynamic_img_size = True
        embed.strict_img_size = False
        embed.flatten = False
        embed.output_fmt = type(embed.output_fmt)("NHWC")


@contextmanager
def _rotary_positions(trunk: nn.Module, cells: tuple[int, int]) -> Iterator[None]:
    """Rotary positions for a map of `cells` (h, w) while images pass.

    timm keeps a table for the native size; it is put back, so that the tower stays what it was.
    """
    tables: list[Any] = [m for m in trunk.modules() if getattr(m, "feat_shape", None)]
    with ExitStack() as after:
        for table in tables:
            if tuple(table.feat_shape) != cells:
                after.callback(_restore, table, table.feat_shape, dict(table.named_buffers()))
                table.update_feat_shape(cells)
        yield


def _restore(table: Any, shape: Any, buffers: dict[str, Tensor]) -> None:
    table.feat_shape = shape
    for name, value in buffers.items():
        setattr(table, name, value)
