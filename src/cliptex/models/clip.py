"""CLIP: two towers and a temperature; built from a description, loaded and saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from open_clip.model import CustomTextCLIP
from open_clip.transformer import VisionTransformer
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.console import say
from cliptex.files import sha256_file, sha256_json, write_atomic
from cliptex.files.network import asking_hub, unavailable
from cliptex.machine import need
from cliptex.models.config import (
    CORENET,
    OPEN_CLIP,
    TIMM,
    ClipConfig,
    ModelSpec,
    OutputStride,
    spec_of,
)
from cliptex.models.corenet import (
    CORENET_MODELS,
    CoreNetClip,
    CoreNetEncoder,
    CoreNetTokenizer,
    corenet_config,
)
from cliptex.models.encoder import ImageEncoder
from cliptex.models.sources import (
    FORMAT,
    MODEL_FILE,
    MODEL_JSON,
    Stored,
    find_folder,
    find_trunk_weights,
    find_weights,
    load_exactly,
    named_config,
    own_names,
    read_folder,
    read_weights,
    stored_names,
)
from cliptex.models.timm_encoder import TimmEncoder
from cliptex.models.tokenizer import Tokenizer, build_tokenizer
from cliptex.models.towers import ConvStem, image_encoder, use_plain_attention

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
    """`config`; ValueError where it asks for what a tower of the authors' library does not have."""
    fields = (
        "quick_gelu",
        "init_logit_bias",
        "conv_stem",
        "output_stride",
        "vocabulary",
    )
    for name in fields:
        if getattr(config, name) != ClipConfig.model_fields[name].default:
            raise ValueError(
                f"`{name}` does not apply to a model of family 'corenet': leave it out"
            )
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
            raise ValueError("`conv_stem` needs a ViT, whose patchify convolution it replaces")
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


_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def build_clip(spec: ModelSpec) -> Clip:
    """The model that `spec` describes; random parts come from `spec.seed` alone.

    A name without weights is random, which is said on standard error. Raises ValueError (naming
    file and key) when weights do not fit, and where a tower cannot be built or gives no map. Only a
    pretraining tag in `spec.weights` and a hub name may reach the network.
    """
    name, weights = spec.name or "", spec.weights
    stored = None if spec.config is not None else _stored(name)
    state = None if stored is None else (stored.state, stored.source)
    trunk = None
    config = _config(spec, stored)
    # Weights come first: where they are missing, nothing need be built.
    if weights is not None and name.startswith(TIMM):
        trunk = (find_trunk_weights(name, weights), weights)
    elif weights is not None:
        file = find_weights(name, weights)
        state = (read_weights(file), str(file))
    if name and state is weights is spec.image_weights is None:
        say(f"{name}: random weights (no {'file' if name.startswith(CORENET) else 'tag'})")
    model = random_clip(config, spec.seed)
    if state is not None:
        load_exactly(model, own_names(state[0], config.family), state[1])
    if trunk is not None:
        _load_trunk(model, *trunk)
    if spec.image_weights is not None:
        path = spec.image_weights
        _load_trunk(model, read_weights(path), str(path))
    return model


def describe_clip(spec: ModelSpec) -> ClipConfig:
    """The description of what `build_clip` would build; nothing is built.

    A folder's or a corenet file's weights are read, since the latter's shapes say its sizes; a hub
    name may download. Raises ValueError as `build_clip` does where there is no such model.
    """
    return _config(spec, None if spec.config is not None else _stored(spec.name or ""))


def load_clip(path_or_name: str | Path, output_stride: OutputStride | None = None) -> Clip:
    """A model in evaluation mode, from a folder or by name (docs/models.md lists the sources).

    Folders: of `save_clip`, of open_clip (open_clip_config.json), of Hugging Face's CLIPModel.
    Names: "playroom" (shipped), "open_clip:NAME" (random), "open_clip:NAME/TAG_OR_FILE",
    "timm:NAME" (random), "timm:NAME/TAG_OR_FILE" (or "timm:NAME.TAG"), "corenet:NAME" (random),
    "corenet:FILE", "hf-hub:ORG/NAME", "hf-hub:ORG/NAME@REVISION".

    output_stride: of a ResNet, instead of its own (see `ModelSpec`).
    """
    return build_clip(spec_of(str(path_or_name), output_stride)).eval()


def save_clip(
    model: Clip,
    folder: Path,
    dtype: Literal["fp32", "fp16"] = "fp32",
    beside: Sequence[str] = (),
) -> Path:
    """Write `folder`/model.safetensors and model.json, each atomically; returns `folder`.

    Keys are open_clip's (`visual.`, `text.`), so that open_clip loads the file into its
    CustomTextCLIP of the same configuration, or those of the authors' library for its models.
    fp16 halves the size and rounds the weights. model.json keeps the sha256 of the weights, of the
    files in `folder` that `beside` names, and of itself; whoever loads them compares.
    """
    to = _DTYPES[dtype]
    state = {
        key: (value.to(to) if value.is_floating_point() else value).contiguous()
        for key, value in stored_names(model.state_dict(), model.config.family).items()
    }
    write_atomic(folder / MODEL_FILE, save(state))
    description: dict[str, object] = {
        "format": FORMAT,
        "dtype": dtype,
        "config": model.config.model_dump(mode="json"),
        "files": {name: sha256_file(folder / name) for name in (MODEL_FILE, *beside)},
    }
    description["sha256"] = sha256_json(description)
    write_atomic(folder / MODEL_JSON, (json.dumps(description, indent=1) + "\n").encode())
    return folder


def _stored(name: str) -> Stored | None:
    """The model on disk that `name` stands for; None for a name that is a description only."""
    if name.startswith((OPEN_CLIP, TIMM)) or name.removeprefix(CORENET) in CORENET_MODELS:
        return None
    if not name.startswith(CORENET):
        return read_folder(find_folder(name))
    file = Path(name.removeprefix(CORENET))
    if not file.is_file():
        raise ValueError(
            f"{name}: no such file, and no model among {sorted(CORENET_MODELS)}: give the file of "
            f"a checkpoint"
        )
    state = read_weights(file)
    return Stored(corenet_config(state, str(file)), state, str(file))


def _config(spec: ModelSpec, stored: Stored | None) -> ClipConfig:
    config = spec.config or (stored.config if stored else _named(spec.name or "", spec.weights))
    asked = {"pool_pos": spec.pool_pos, "output_stride": spec.output_stride}
    return config.model_copy(update={k: v for k, v in asked.items() if v is not None})


def _named(name: str, weights: str | None) -> ClipConfig:
    if name.startswith(CORENET):
        return CORENET_MODELS[name.removeprefix(CORENET)]
    tag = weights if weights is not None and not Path(weights).exists() else None
    return named_config(name, tag)


def _load_trunk(model: Clip, state: Mapping[str, Tensor], source: str) -> None:
    """Load an image tower alone; a timm classifier in `state` is left out."""
    encoder = model.image
    trunk = encoder.tower.trunk if isinstance(encoder, TimmEncoder) else encoder.tower
    assert isinstance(trunk, nn.Module)
    wanted = trunk.state_dict()
    classifier = f"{getattr(trunk, 'default_cfg', {}).get('classifier', '-')}."
    fitting = {k: v for k, v in state.items() if k in wanted or not k.startswith(classifier)}
    load_exactly(trunk, fitting, source)
