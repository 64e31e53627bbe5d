from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cliptex.metrics import RULE_TIES
from cliptex.metrics.scorers import AccuracyScorer
from cliptex.zeroshot import (
    IMAGENET_TEMPLATES,
    PLAYROOM_TEMPLATES,
    SHORT_TEMPLATES,
    classifier_weights,
    prompts,
    run_retrieval,
    run_zeroshot,
)
from cliptex.zeroshot.encode import ZeroShotConfig
from cliptex.zeroshot.prompts import (
    fill,
    names_for,
    prompt_protocol,
    read_names,
    read_templates,
    readable,
)

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


def test_prompts__named_lists_and_files(tmp_path):
    assert read_templates("openai80") is IMAGENET_TEMPLATES
    assert read_templates("simple") is SHORT_TEMPLATES
    path = tmp_path / "templates.txt"
    path.write_text("a {}.\n\nmy {}\n")
    assert read_templates(str(path)) == ("a {}.", "my {}")
    path.write_text("no place\n")
    with pytest.raises(ValueError, match="exactly one"):
        read_templates(str(path))
    path.write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        read_templates(str(path))
    with pytest.raises(ValueError, match="'openai' ?: neither .*openai80"):
        read_templates("openai")


def test_prompts__names(tmp_path):
    assert readable(("garden_bench", "tvmonitor")) == ["garden bench", "tv monitor"]
    for bare in ("n01440764", "class 7"):
        with pytest.raises(ValueError, match=f"1 of 2 classes .*'{bare}'.*`classes`"):
            readable(("cat", bare))
    path = tmp_path / "names.txt"
    path.write_text("red; crimson\ngreen\n")
    names = read_names(path)
    assert names == [("red", "crimson"), ("green",)]
    path.write_text("\ufeffred\n ; \ngreen\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"names\.txt: the line ';' holds no name"):
        read_names(path)
    path.write_text("\ufeffred\n", encoding="utf-8")  # as some editors begin a file
    assert read_names(path) == [("red",)]
    assert names_for(("n01440764", "x"), names, "d") is names
    with pytest.raises(ValueError, match="2 names for the 1 classes of d"):
        names_for(("x",), names, "d")


def test_prompts__protocol_tells_names_apart():
    rows = [prompt_protocol(IMAGENET_TEMPLATES, names) for names in (["a", "b"], ["b", "a"])]
    assert [row["templates"] for row in rows] == ["openai80", "openai80"]
    assert rows[0]["class_names"] != rows[1]["class_names"]
    assert prompt_protocol(("{}",), [("a",), "b"]) == {**rows[0], "templates": ["{}"]}


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
    # top-5 of three classes would say nothing
    assert [row.metric for row in outcome.results] == ["top1", "mean_per_class"]
    assert row.protocol["templates"] == ["a {} thing"] and row.protocol["crop"] == "squash"
    assert row.protocol["classes"] == 3


def test_zeroshot__mean_per_class_is_that_of_the_probe(tmp_path):
    asked = ("red", "blue", "green")  # red alone is right: of 5, 4 and 4 pictures
    test = Pictures(13)
    outcome = run_zeroshot(ColourClip(), test, config(templates=("{}",)), model="m", classes=asked)
    assert outcome.value("top1") == pytest.approx(500 / 13)
    assert outcome.value("mean_per_class") == pytest.approx(100 / 3)
    scorer = AccuracyScorer(3)
    for index in range(13):
        scorer.add(torch.eye(3)[[0, 2, 1][index % 3]][:, None, None], np.array(index % 3))
    images = scorer.per_image()["mean_per_class"]
    np.testing.assert_array_equal(outcome.per_image["mean_per_class"], images)
    rules = [row.protocol.get("metric") for row in outcome.results]
    assert rules == [None, scorer.metrics()["mean_per_class"].rule]
    assert len(outcome.save_per_image(tmp_path)) == 2


def test_zeroshot__wrong_names_give_wrong_classes():
    asked = ("green", ("red", "crimson"), "blue")
    outcome = run_zeroshot(
        ColourClip(), Pictures(), config(templates=("{}",)), model="m", classes=asked
    )
    assert outcome.value("top1") == pytest.approx(100 / 3)
    assert outcome.per_image["top1"].tolist() == [0, 0, 100] * 3
    with pytest.raises(ValueError, match="2 names for the 3 classes"):
        run_zeroshot(ColourClip(), Pictures(), config(), model="m", classes=("a", "b"))


def test_alike__by_tokens_of_every_template():
    clip = ColourClip()
    names = ["red", "shiny red", ("red", "crimson"), ("crimson", "old red"), "green", "red"]
    assert prompts.same_prompt_groups(clip, names, ("a {}", "{} thing")) == [(0, 1, 5), (2, 3)]
    # the first template alone hides what tells these two apart
    assert prompts.same_prompt_groups(clip, ["red", "blue"], ("the{}", "a {}")) == []
    assert prompts.same_prompt_groups(clip, ["red", "blue"], ("the{}",)) == [(0, 1)]


def test_zeroshot__classes_with_the_same_prompts_are_named_and_counted(caplog):
    plain = config(templates=("a {}",))
    whole = run_zeroshot(ColourClip(), Pictures(), plain, model="m").results
    assert caplog.messages == [] and all("classes_alike" not in row.protocol for row in whole)
    asked = ("tench", "golf ball", ("green", "tench"))
    rows = run_zeroshot(ColourClip(), Pictures(), plain, model="m", classes=asked).results
    assert [row.protocol["classes_alike"] for row in rows] == [2, 2]
    (line,) = (said for said in caplog.messages if "same prompts" in said)
    assert line.startswith(
        "m: zero-shot on colours: 2 of 3 classes have the same prompts as another: tench = golf "
        "ball. Their names are equal, or differ in words that the model's tokenizer does not know"
    )


def test_zeroshot__classes_that_tie_count_by_expectation_and_are_counted(caplog):
    asked = ("tench", "golf ball", "green")  # the first two look alike to this tokenizer
    plain = config(templates=("a {}",))
    outcome = run_zeroshot(ColourClip(), Pictures(), plain, model="m", classes=asked)
    # three red pictures: "tench" ties for the first place; three green ones: green alone is first
    assert outcome.per_image["top1"].tolist() == [50, 0, 0] * 3
    assert outcome.value("top1") == pytest.approx(100 * 1.5 / 9)
    assert outcome.value("mean_per_class") == pytest.approx(50 / 3)
    row = outcome.results[0]
    assert row.protocol["tied_images"] == 6 and row.protocol["ties"] == RULE_TIES
    (told,) = (said for said in caplog.messages if "ties with" in said)
    assert told.startswith(
        "m: zero-shot on colours: for 6 of 9 images the right answer ties with wrong ones"
    )


def test_alike__of_many_a_few_are_named(caplog):
    names = [f"{i} {colour}" for colour in ("red", "green") for i in range(7)]
    groups = prompts.same_prompt_groups(ColourClip(), names, ("a {}",))
    assert prompts.same_prompt_protocol(groups, names, label="m", so="they tie") == {
        "classes_alike": 14
    }
    assert caplog.messages[0].endswith(": they tie")
    assert "0 red = 1 red = 2 red = 3 red and 3 more; 0 green = 1 green" in caplog.messages[0]


class Strided(ColourClip):
    """As a real CLIP: refuses pictures that its stride does not divide, and keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Identity()
        self.image.stride = 14
        self.seen: list[Tensor] = []

    def encode_image(self, images: Tensor) -> Tensor:
        assert images.shape[-1] % 14 == 0 and images.shape[-2] % 14 == 0
        self.seen.append(images)
        return super().encode_image(images)


def test_zeroshot__nearest_multiple_of_the_stride():
    for asked, seen in ((224, 224), (230, 224), (232, 238), (5, 14)):
        clip = Strided()
        outcome = run_zeroshot(clip, Pictures(2), config(resolution=asked), model="m")
        protocol = outcome.results[0].protocol
        assert (protocol["resolution"], protocol["encoder_resolution"]) == (asked, seen)
        assert clip.seen[0].shape[-1] == seen


@dataclass
class Banner(Pictures):
    """Green, with a red square in the middle: 40 x 120 pixels, or upright."""

    upright: bool = False

    def image(self, index: int) -> np.ndarray:
        picture = np.zeros((40, 120, 3), np.uint8)
        picture[..., 1] = 255
        picture[:, 40:80] = (255, 0, 0)
        return np.ascontiguousarray(picture.transpose(1, 0, 2)) if self.upright else picture


@pytest.mark.parametrize("upright", [False, True])
def test_zeroshot__center_sees_the_central_square(upright):
    squashed, centred = Strided(), Strided()
    banner = Banner(1, upright=upright)
    for clip, crop in ((squashed, "squash"), (centred, "center")):
        outcome = run_zeroshot(clip, banner, config(resolution=14, crop=crop), model="m")
        assert outcome.results[0].protocol["crop"] == crop
    means = [clip.seen[0].mean((0, 2, 3)) for clip in (squashed, centred)]
    torch.testing.assert_close(means[0], torch.tensor([1 / 3, 2 / 3, 0]), atol=0.02, rtol=0)
    torch.testing.assert_close(means[1], torch.tensor([1.0, 0, 0]), atol=0.02, rtol=0)


def test_zeroshot__bare_synsets_are_refused():
    pictures = Pictures(classes=("n01440764", "green", "blue"))
    with pytest.raises(ValueError, match="n01440764"):
        run_zeroshot(ColourClip(), pictures, config(), model="m")
    asked = ("red", "green", "blue")
    plain = config(templates=("{}",))
    outcome = run_zeroshot(ColourClip(), pictures, plain, model="m", classes=asked)
    assert outcome.value("top1") == 100


def test_retrieval__many_captions(tmp_path):
    captions = [["a red one", "crimson"], ["green"], ["something green", "a blue one"]]
    outcome = run_retrieval(ColourClip(), Pictures(3, captions=captions), config(), model="m")
    # the fourth caption names another picture's colour: 4 of 5 captions find their picture
    assert outcome.value("image_r1") == 80
    assert outcome.value("image_r5") == outcome.value("text_r10") == 100
    # per picture: its captions that found it, of how many; image R@1 is 100 times the sums' ratio
    assert outcome.per_image["image_r1"].tolist() == [[2, 2], [1, 1], [1, 2]]
    assert outcome.per_image["image_r5"].tolist() == [[2, 2], [1, 1], [2, 2]]
    # the green picture's own caption ties with the misplaced one, of the same colour
    assert outcome.per_image["text_r1"].tolist() == [100, 50, 100]
    tied = {r.metric: {k: v for k, v in r.protocol.items() if "tie" in k} for r in outcome.results}
    assert tied["text_r1"] == {"ties": RULE_TIES, "tied_images": 1}
    assert tied["image_r1"] == {"ties": RULE_TIES}
    assert {r.metric for r in outcome.results} == {
        f"{way}_r{k}" for way in ("image", "text") for k in (1, 5, 10)
    }
    assert all(r.probe is None and r.better == "higher" for r in outcome.results)
    assert outcome.results[0].protocol["captions"] == 5
    assert len(outcome.save_per_image(tmp_path)) == 6


def test_retrieval__pictures_without_a_caption_are_refused_before_any_is_encoded(monkeypatch):
    monkeypatch.setattr(Pictures, "image", lambda *_: pytest.fail("encoded"))
    test = Pictures(4, captions=[["red"], [], ["blue"], []])
    told = r"^colours: 2 of 4 pictures have no caption, the first of them number 1 \(from 0\): "
    with pytest.raises(ValueError, match=told):
        run_retrieval(ColourClip(), test, config(), model="m")


def test_zeroshot__batches_and_precision_change_nothing_much():
    pictures = Pictures(7, captions=[["red"], ["green"], ["blue"], *[["red"]] * 4])
    one = run_retrieval(ColourClip(), pictures, config(batch_size=1), model="m")
    many = run_retrieval(ColourClip(), pictures, config(batch_size=64), model="m")
    assert [r.value for r in one.results] == [r.value for r in many.results]
    half = run_zeroshot(
        ColourClip(), Pictures(), config(precision="bf16", templates=("{}",)), model="m"
    )
    assert half.value("top1") == 100


class Diverged(ColourClip):
    """Has NaN in one of its towers."""

    def __init__(self, tower: str) -> None:
        super().__init__()
        self.tower = tower

    def encode_text(self, tokens: Tensor) -> Tensor:
        return super().encode_text(tokens) * (float("nan") if self.tower == "texts" else 1)

    def encode_image(self, images: Tensor) -> Tensor:
        return super().encode_image(images) / (0.0 if self.tower == "pictures" else 1)


@pytest.mark.parametrize("tower", ["texts", "pictures"])
@pytest.mark.parametrize("run", [run_zeroshot, run_retrieval])
def test_zeroshot__embeddings_that_are_not_finite_are_an_error(run, tower):
    test = Pictures(3, captions=[["red"], ["green"], ["blue"]])
    told = f"^bad: .* colours: embeddings of {tower} are not finite: the checkpoint has diverged"
    with pytest.raises(ValueError, match=told) as raised:
        run(Diverged(tower), test, config(), model="bad")
    assert "fp32" not in str(raised.value)
    with pytest.raises(ValueError, match="set precision to fp32$"):
        run(Diverged(tower), test, config(precision="bf16"), model="bad")
