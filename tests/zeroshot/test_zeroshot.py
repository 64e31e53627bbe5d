from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cliptex.zeroshot import (
    IMAGENET_TEMPLATES,
    PLAYROOM_TEMPLATES,
    SHORT_TEMPLATES,
    classifier_weights,
    run_retrieval,
    run_zeroshot,
)
from cliptex.zeroshot.encode import ZeroShotConfig
from cliptex.zeroshot.prompts import fill

COLOURS = {"red": 0, "crimson": 0, "green": 1, "blue": 2}
CLASSES = ("red", "green", "blue")


class ColourClip(nn.Module):
    """Embeds a picture as its mean colour and a text as the colour that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)  # would make rows random in training mode
        self.prompts: list[str] = []

    def tokenize(self, texts: list[str]) -> Tensor:
        self.prompts += texts
        rows = [[word in text.split() for word in COLOURS] for text in texts]
        return torch.tensor(rows, dtype=torch.long)

    def encode_text(self, tokens: Tensor) -> Tensor:
        out = torch.zeros(len(tokens), 3)
        for column, colour in enumerate(COLOURS.values()):
            out[:, colour] += tokens[:, column]
        return self.drop(out + 0.01)

    def encode_image(self, images: Tensor) -> Tensor:
        return self.drop(images.mean((2, 3)))


@dataclass
class Pictures:
    """Picture i shows colour i % 3, with some grey noise."""

    count: int = 9
    name: str = "colours"
    classes: tuple[str, ...] = CLASSES
    captions: list[list[str]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> np.ndarray:
        picture = np.random.default_rng(index).integers(0, 60, (6, 8, 3), dtype=np.uint8)
        picture[..., index % 3] = 250
        return picture

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.image(index), index % 3


def config(**changes) -> ZeroShotConfig:
    return ZeroShotConfig(**({"resolution": 4, "batch_size": 4} | changes))


def test_prompts__known_lists():
    assert (len(IMAGENET_TEMPLATES), len(SHORT_TEMPLATES)) == (80, 7)
    assert set(SHORT_TEMPLATES) <= set(IMAGENET_TEMPLATES)
    assert fill(("a photo of a {}.",), "cat") == ["a photo of a cat."]
    assert all(len(fill(t, "x")) == len(t) for t in (IMAGENET_TEMPLATES, PLAYROOM_TEMPLATES))
    with pytest.raises(ValueError, match="exactly one"):
        fill(("a photo",), "cat")


def test_weights__average_over_templates_and_synonyms():
    clip = ColourClip().eval()
    weights = classifier_weights(
        clip, [("red", "crimson"), "green"], config(templates=("a {}", "some {} thing"))
    )
    assert clip.prompts[:4] == ["a red", "some red thing", "a crimson", "some crimson thing"]
    assert weights.shape == (2, 3)
    torch.testing.assert_close(weights.norm(dim=1), torch.ones(2))
    with pytest.raises(ValueError, match="without a name"):
        classifier_weights(clip, [()], config())


def test_zeroshot__colours_are_named():
    outcome = run_zeroshot(ColourClip(), Pictures(), config(templates=("a {} thing",)), model="m")
    row = outcome.results[0]
    assert (row.task, row.metric, row.probe, row.value, row.n) == ("zeroshot", "top1", None, 100, 9)
    assert len(outcome.results) == 1  # top-5 of three classes would say nothing
    assert row.protocol["templates"] == ["a {} thing"]


def test_zeroshot__wrong_names_give_wrong_classes():
    asked = ("green", ("red", "crimson"), "blue")
    outcome = run_zeroshot(
        ColourClip(), Pictures(), config(templates=("{}",)), model="m", classes=asked
    )
    assert outcome.value("top1") == pytest.approx(100 / 3)
    assert outcome.per_image["top1"].tolist() == [0, 0, 100] * 3
    with pytest.raises(ValueError, match="2 names for the 3 classes"):
        run_zeroshot(ColourClip(), Pictures(), config(), model="m", classes=("a", "b"))


def test_retrieval__many_captions(tmp_path):
    captions = [["a red one", "crimson"], ["green"], ["something green", "a blue one"]]
    outcome = run_retrieval(ColourClip(), Pictures(3, captions=captions), config(), model="m")
    # the fourth caption names another picture's colour: 4 of 5 captions find their picture
    assert outcome.value("image_r1") == 80
    assert outcome.value("image_r5") == outcome.value("text_r10") == 100
    # the green picture's own caption ties with the misplaced one, and ties count against
    assert outcome.per_image["text_r1"].tolist() == [100, 0, 100]
    assert {r.metric for r in outcome.results} == {
        f"{way}_r{k}" for way in ("image", "text") for k in (1, 5, 10)
    }
    assert all(r.probe is None and r.better == "higher" for r in outcome.results)
    assert outcome.results[0].protocol["captions"] == 5
    assert len(outcome.save_per_image(tmp_path)) == 6


def test_zeroshot__batches_and_precision_change_nothing_much():
    pictures = Pictures(7, captions=[["red"], ["green"], ["blue"], *[["red"]] * 4])
    one = run_retrieval(ColourClip(), pictures, config(batch_size=1), model="m")
    many = run_retrieval(ColourClip(), pictures, config(batch_size=64), model="m")
    assert [r.value for r in one.results] == [r.value for r in many.results]
    half = run_zeroshot(
        ColourClip(), Pictures(), config(precision="bf16", templates=("{}",)), model="m"
    )
    assert half.value("top1") == 100
