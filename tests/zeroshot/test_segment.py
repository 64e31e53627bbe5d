"""Segmentation from text: cells of every kind of tower, and scores worked by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cliptex.datasets.protocol import DenseItem
from cliptex.labels.kinds import ClassMap, ScalarField
from cliptex.models.clip import build_clip
from cliptex.models.config import ClipConfig, ModelSpec
from cliptex.models.encoder import Features, ImageEncoder
from cliptex.zeroshot import run_zeroshot_segmentation
from cliptex.zeroshot import segment as room
from cliptex.zeroshot.encode import ZeroShotConfig
from cliptex.zeroshot.segment import patch_embeddings, segment, way_of

TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
VOCABULARY = tuple(range(256, 317))


def clip_of(vision, embed_dim=12, **changes):
    text = {k: v for k, v in TEXT.items() if k != "vocab_size"}
    config = ClipConfig(
        embed_dim=embed_dim, vision_cfg=vision, text_cfg=text, vocabulary=VOCABULARY, **changes
    )
    return build_clip(ModelSpec(config=config, seed=1)).eval()


def pictures(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x, dim=-1)


@pytest.mark.parametrize("final_norm", [True, False])
def test_vit__mean_pooling_is_the_mean_of_cells(final_norm):
    vision = {**VIT, "pool_type": "avg", "final_ln_after_pool": not final_norm}
    encoder = clip_of(vision).image
    images = pictures(2, 3, 32, 48)
    cells = patch_embeddings(encoder, images)
    assert cells.shape == (2, 12, 4, 6)
    torch.testing.assert_close(cells.norm(dim=1), torch.ones(2, 4, 6))
    features = encoder(images)
    tokens = features.maps[8].flatten(2).transpose(1, 2) @ encoder.tower.proj
    torch.testing.assert_close(cells.flatten(2).transpose(1, 2), unit(tokens))
    if final_norm:  # the projection is linear, so it commutes with the mean over normed tokens
        torch.testing.assert_close(tokens.mean(1), features.embedding, atol=1e-5, rtol=1e-4)


def test_vit__attention_pooling_is_refused():
    encoder = clip_of({**VIT, "attentional_pool": True, "attn_pooler_heads": 2}).image
    with pytest.raises(ValueError, match="VitEncoder.*no embedding beside text"):
        patch_embeddings(encoder, pictures(1, 3, 32, 32))


def test_corenet__tokens_through_the_class_token_s_projection():
    tower = {"width": 16, "layers": 1, "heads": 2, "hidden": 32, "positions": 4}
    config = ClipConfig(
        family="corenet", embed_dim=6, vision_cfg=tower, text_cfg={**tower, "vocab_size": 49408}
    )
    encoder = build_clip(ModelSpec(config=config)).eval().image
    images = pictures(1, 3, 32, 64)
    cells = patch_embeddings(encoder, images)
    dense = encoder(images).maps[16]
    expected = torch.einsum("bchw,cd->bhwd", dense, encoder.tower.classifier.proj)
    torch.testing.assert_close(cells.permute(0, 2, 3, 1), unit(expected))


def test_resnet__one_cell_is_pooled_to_its_value():
    encoder = clip_of({"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}).image
    pool = encoder.tower.attnpool
    with torch.no_grad():
        pool.positional_embedding.zero_()
    images = pictures(
        2, 3, 32, 32
    )  # a map of one cell: its mean is itself, attention changes nothing
    cells = patch_embeddings(encoder, images)
    torch.testing.assert_close(cells[..., 0, 0], unit(encoder(images).embedding))
    assert patch_embeddings(encoder, pictures(1, 3, 64, 96)).shape == (1, 12, 2, 3)
    assert "MaskCLIP" in way_of(encoder)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("vit_tiny_patch16_224", {}),
        ("test_vit4", {}),  # three register tokens, attention pooling of its own
        ("test_efficientnet", {}),
        ("test_convnext", {}),
    ],
)
def test_timm__a_map_of_one_cell_is_its_own_embedding(name, keys):
    vision = {"timm_model_name": name, "image_size": 64, "timm_pool": "", "timm_proj": "linear"}
    encoder = clip_of(vision | keys).image
    side = 2 * encoder.stride
    cells = patch_embeddings(encoder, pictures(2, 3, side, 2 * side))
    assert cells.shape == (2, 12, 2, 4)
    torch.testing.assert_close(cells.norm(dim=1), torch.ones(2, 2, 4))
    one = patch_embeddings(encoder, pictures(2, 3, encoder.stride, encoder.stride))
    whole = encoder(pictures(2, 3, encoder.stride, encoder.stride))
    if name in ("test_efficientnet", "test_convnext"):  # no class token beside the cell
        torch.testing.assert_close(one[..., 0, 0], unit(whole.embedding), atol=1e-5, rtol=1e-4)


def test_timm__a_head_that_takes_no_single_cells_is_refused(monkeypatch):
    vision = {"timm_model_name": "test_efficientnet", "image_size": 64, "timm_pool": ""}
    encoder = clip_of(vision | {"timm_proj": "linear"}).image

    whole = encoder.tower.trunk.forward_head

    def of_whole_maps(cells):
        if cells.shape[-1] == 1:
            raise RuntimeError("shape '[1, 7, 7]' is invalid for input of size 1")  # Hiera's
        return whole(cells)

    monkeypatch.setattr(encoder.tower.trunk, "forward_head", of_whole_maps)
    with pytest.raises(ValueError, match="no embedding beside text"):
        patch_embeddings(encoder, pictures(1, 3, 64, 64))


def test_timm__attention_of_the_adapter_is_refused():
    vision = {"timm_model_name": "test_efficientnet", "image_size": 64, "timm_pool": "abs_attn"}
    encoder = clip_of(vision | {"timm_proj": "linear"}).image
    with pytest.raises(ValueError, match="TimmEncoder"):
        patch_embeddings(encoder, pictures(1, 3, 64, 64))


class ColourEncoder(ImageEncoder):
    """One cell per 2 x 2 pixels, embedded as its mean colour."""

    stride, channels, pooled_channels, embed_dim, image_size = 2, 3, 3, 3, 8

    def __init__(self) -> None:
        super().__init__((0, 0, 0), (1, 1, 1))

    def features(self, images: Tensor) -> Features:
        dense = nn.functional.avg_pool2d(images, 2)
        return Features(dense.mean((2, 3)), dense.mean((2, 3)), {2: dense})


class ColourClip(nn.Module):
    """Names of colours are embedded as those colours."""

    def __init__(self) -> None:
        super().__init__()
        self.image = ColourEncoder()

    def tokenize(self, texts: list[str]) -> Tensor:
        return torch.tensor([[word in text for word in ("red", "green", "blue")] for text in texts])

    def encode_text(self, tokens: Tensor) -> Tensor:
        return tokens.float() + 0.01


@dataclass
class Scenes:
    """Left half red, right half green, 8 x 12 pixels; the truth as given, per picture."""

    targets: list[np.ndarray]
    kind: object = ClassMap(("background", "green", "blue"))
    name: str = "scenes"

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> DenseItem:
        image = np.zeros((8, 12, 3), np.uint8)
        image[:, :6, 0] = image[:, 6:, 1] = 255
        return DenseItem(image=image, target=self.targets[index])


@pytest.fixture
def colours(monkeypatch):
    """Cells of the toy encoder are embeddings already."""

    def cells(encoder, images):
        return nn.functional.normalize(encoder(images).maps[2], dim=1)

    monkeypatch.setattr(room, "patch_embeddings", cells)
    return ColourClip()


def halves(left, right):
    target = np.full((8, 12), left, np.uint8)
    target[:, 6:] = right
    return target


NAMES = ("red", "green", "blue")
CONFIG = ZeroShotConfig(resolution=8, templates=("{}",))


def test_segment__halves(colours):
    weights = torch.eye(3)
    image = Scenes([halves(0, 1)])[0].image
    np.testing.assert_array_equal(segment(colours, image, weights, CONFIG), halves(0, 1))
    large = segment(colours, image, weights, CONFIG, size=(16, 24))
    assert large.shape == (16, 24) and large[0, 0] == 0 and large[-1, -1] == 1


def test_run__scores_by_hand(colours):
    truth = [halves(0, 1), halves(2, 1), halves(255, 255)]
    outcome = run_zeroshot_segmentation(colours, Scenes(truth), CONFIG, model="m", classes=NAMES)
    # red is right on 48 of 48 + 48 pixels, green everywhere, blue never found
    assert outcome.value("miou") == pytest.approx((50 + 100 + 0) / 3)
    assert outcome.value("miou_things") == pytest.approx(50)
    row = outcome.results[0]
    assert (row.task, row.n, row.better) == ("zeroshot-segmentation", 3, "higher")
    assert row.protocol["class_iou"] == {"background": 50, "green": 100, "blue": 0}
    support = {"background": [48, 1], "green": [96, 2], "blue": [48, 1]}
    assert row.protocol["class_support"] == support
    assert row.protocol["absent_classes"] == [] and row.protocol["encoder_resolution"] == 8
    areas = outcome.per_image["miou"]  # intersection, prediction, truth
    assert areas.shape == (3, 3, 3) and outcome.per_image["miou_things"].shape == (3, 2, 3)
    assert areas[:, 0].tolist() == [[48, 48, 48], [0, 48, 0], [0, 0, 0]]
    assert areas.sum(0).tolist() == [[48, 96, 48], [96, 96, 96], [0, 0, 48]]


def test_run__classes_with_the_same_prompts_are_named_and_counted(colours, caplog):
    asked = ("bin", "green", "background")
    scenes = Scenes([halves(0, 1)])
    rows = run_zeroshot_segmentation(colours, scenes, CONFIG, model="m", classes=asked).results
    assert [row.protocol["classes_alike"] for row in rows] == [2, 2]
    told = "m: segmentation by text on scenes: 2 of 3 classes have the same prompts as another: bin"
    assert [line[: len(told)] for line in caplog.messages] == [told]
    clear = run_zeroshot_segmentation(colours, scenes, CONFIG, model="m", classes=NAMES).results
    assert "classes_alike" not in clear[0].protocol and len(caplog.messages) == 1


def test_run__resolution_need_not_fit_the_stride(colours):
    config = CONFIG.model_copy(update={"resolution": 9})
    scenes = Scenes([halves(0, 1)])
    outcome = run_zeroshot_segmentation(colours, scenes, config, model="m", classes=NAMES)
    assert outcome.results[0].protocol["encoder_resolution"] == 8 and outcome.value("miou") == 100


def test_run__faults(colours):
    with pytest.raises(ValueError, match="no classes to segment"):
        run_zeroshot_segmentation(colours, Scenes([], ScalarField("m")), CONFIG, model="m")
    centre = CONFIG.model_copy(update={"crop": "center"})
    with pytest.raises(ValueError, match="crop=center"):
        run_zeroshot_segmentation(colours, Scenes([]), centre, model="m")
    with pytest.raises(ValueError, match="1 names for the 3 classes"):
        run_zeroshot_segmentation(colours, Scenes([]), CONFIG, model="m", classes=["red"])


@pytest.mark.parametrize("tower", ["image", "text"])
def test_run__embeddings_that_are_not_finite_are_an_error(colours, tower, monkeypatch):
    if tower == "image":
        monkeypatch.setattr(colours.image, "features", lambda x: ColourEncoder().features(x / 0))
    else:
        monkeypatch.setattr(colours, "encode_text", lambda tokens: tokens * float("inf"))
    told = "^m: segmentation by text on .*not finite"
    with pytest.raises(ValueError, match=told):
        run_zeroshot_segmentation(colours, Scenes([halves(0, 1)]), CONFIG, model="m", classes=NAMES)
