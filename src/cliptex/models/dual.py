"""CLIP as two towers and a temperature, built from a ModelSpec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from open_clip.model import CustomTextCLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.files.network import asking_hub, unavailable
from cliptex.machine import need
from cliptex.models.attention import use_plain_attention
from cliptex.models.corenet import CoreNetClip, CoreNetEncoder, CoreNetTokenizer
from cliptex.models.encoder import ImageEncoder
from cliptex.models.spec import ClipConfig
from cliptex.models.stem import ConvStem
from cliptex.models.tokenizer import Tokenizer, build_tokenizer
from cliptex.models.towers import image_encoder

MAX_SCALE = 100.0  # Radford et al. 2021, section 2.5


class Clip(nn.Module):
    """Image encoder, text encoder and logit scale of one CLIP.

    Attributes:
        config: the full description, from which `save_clip` and `load_clip` rebuild the model.
        image: dense-capable image encoder.
        text: text tower, of open_clip or of the authors' library.
        logit_scale: () natural logarithm of the inverse temperature.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config = config.resolved()
        self.image: ImageEncoder
        self.text: nn.Module
        self.logit_scale: nn.Parameter
        self.logit_bias: nn.Parameter | None = None
        if config.family == "corenet":
            self._take_corenet(CoreNetClip(_plain(config)))
        else:
            self._take_open_clip(_towers(config))

    def _take_corenet(self, parts: CoreNetClip) -> None:
        self.image = CoreNetEncoder(parts.image_encoder, self.config)
        self.text = parts.text_encoder
        self.logit_scale = parts.logit_scale
        self.tokenizer: Tokenizer = CoreNetTokenizer(parts.text_encoder.context_length)

    def _take_open_clip(self, parts: Any) -> None:
        config = self.config
        self.image = image_encoder(
            parts.visual,
            config.mean,
            config.std,
            config.pool_pos or "grid2d",
            config.output_stride,
        )
        self.text = parts.text
        self.logit_scale = parts.logit_scale
        self.logit_bias = parts.logit_bias
        vocabulary = config.vocabulary if isinstance(config.vocabulary, tuple) else None
        self.tokenizer = build_tokenizer(config.text_cfg, vocabulary)

    @property
    def scale(self) -> Tensor:
        """() inverse temperature, at most 100."""
        return self.logit_scale.exp().clamp(max=MAX_SCALE)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (B, context length) int64."""
        return self.tokenizer(texts)

    def encode_image(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> (B, D) float32 of unit length."""
        return F.normalize(self.image(images).embedding.float(), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L) int64 -> (B, D) float32 of unit length."""
        return F.normalize(self.text(tokens).float(), dim=-1)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit image embeddings (B, D), unit text embeddings (B, D), scale ()."""
        return self.encode_image(images), self.encode_text(tokens), self.scale


def _plain(config: ClipConfig) -> ClipConfig:
    """`config`, if it asks nothing that a tower of the authors' library does not have."""
    fields = (
        "quick_gelu",
        "init_logit_bias",
        "conv_stem",
        "output_stride",
        "vocabulary",
    )
    for name in fields:
        if getattr(config, name) != ClipConfig.model_fields[name].default:
            raise ValueError(f"{name} is not for a model of family 'corenet': leave it out")
    return config


def _towers(config: ClipConfig) -> Any:
    """open_clip's two-tower model for `config`, its stem replaced where asked."""
    for key in ("timm_model_pretrained", "output_tokens"):
        if config.vision_cfg.get(key):
            raise ValueError(f"vision_cfg.{key} must be left out: weights and outputs are ours")
    if config.vision_cfg.get("patch_dropout"):
        raise ValueError("vision_cfg.patch_dropout must be 0: dense maps need every token")
    text_cfg = {k: v for k, v in config.text_cfg.items() if k != "hf_model_pretrained"}
    if "hf_model_name" in text_cfg:  # the tower's own weights would otherwise be downloaded here
        text_cfg["hf_model_pretrained"] = False
        what = f"the text tower {text_cfg['hf_model_name']}"
        need("transformers", extra="experts", what=what)
    parts = _open_clips(config, text_cfg)
    use_plain_attention(parts)
    if config.conv_stem:
        if not isinstance(parts.visual, VisionTransformer):
            raise ValueError("conv_stem replaces the patchify convolution of a ViT: no other tower")
        _put_stem(parts.visual)
    return parts


def _open_clips(config: ClipConfig, text_cfg: dict[str, Any]) -> Any:
    """open_clip's model; whatever it raises becomes one ValueError."""
    try:
        with asking_hub():
            return CustomTextCLIP(
                config.embed_dim,
                config.vision_cfg,  # pyright: ignore[reportArgumentType]  (open_clip takes dicts)
                text_cfg,  # pyright: ignore[reportArgumentType]
                quick_gelu=config.quick_gelu,
                init_logit_scale=config.init_logit_scale,
                init_logit_bias=config.init_logit_bias,
            )
    except Exception as error:
        if isinstance(error, OSError) and "hf_model_name" in text_cfg:
            what = f"the description of the text tower {text_cfg['hf_model_name']}"
            raise unavailable(what, error) from error
        tower = config.vision_cfg.get("timm_model_name", "")
        raise ValueError(
            f"vision_cfg or text_cfg: open_clip cannot build it: {tower and f'timm {tower}: '}"
            f"{error or type(error).__name__}"
        ) from error


def _put_stem(visual: Any) -> None:
    visual.conv1 = ConvStem(visual.transformer.width, visual.patch_size[0])


def random_clip(config: ClipConfig, seed: int) -> Clip:
    """A Clip with weights drawn from `seed` alone; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Clip(config)
