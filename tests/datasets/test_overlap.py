import io
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from cliptex.cli import main
from cliptex.datasets import ImageFolder, VocSegmentation
from cliptex.datasets.captions import CocoCaptions, Karpathy
from cliptex.datasets.coco import CocoInstances
from cliptex.datasets.overlap import find_overlap, near_pairs, picture_hash, reader_of
from cliptex.results import read_results
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import decode_image
from cliptex.shards.importers import import_folder

from .conftest import save_image


def scene(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A smooth picture, as photographs are: coarse colours, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(large)


def encoded(picture: Image.Image, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return decode_image(buffer.getvalue())


def bits(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.bitwise_count(picture_hash(a) ^ picture_hash(b)).sum())


def test_hash__by_hand():
    ramp = np.repeat(np.arange(0, 252, 28, dtype=np.uint8)[None, :, None], 9, 0)
    along, down = picture_hash(np.repeat(ramp, 3, 2)).tolist()
    assert (along, down) == (2**64 - 1, 0)  # brighter along rows, the same down columns
    along, down = picture_hash(np.repeat(ramp, 3, 2).transpose(1, 0, 2)).tolist()
    assert (along, down) == (0, 2**64 - 1)
    along, down = picture_hash(np.repeat(ramp[:, ::-1], 3, 2)).tolist()
    assert (along, down) == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: np.asarray(p.resize((80, 60), Image.Resampling.BILINEAR)),
        lambda p: np.asarray(p.resize((224, 224), Image.Resampling.BICUBIC)),
        lambda p: encoded(p, 30),
        lambda p: np.asarray(ImageEnhance.Brightness(p).enhance(0.8)),
    ],
    ids=["half", "squashed", "re-encoded", "darker"],
)
def test_hash__near_duplicates_are_near_and_others_far(change):
    for seed in range(10):
        picture = scene(seed)
        assert bits(picture, change(Image.fromarray(picture))) <= 12
        assert bits(picture, scene(seed + 100)) > 30
        assert bits(picture, picture[:, ::-1]) > 30


def test_near_pairs__equal_the_definition_in_any_block():
    rng = np.random.default_rng(0)
    train = rng.integers(0, 2**63, (23, 2)).astype(np.uint64)
    test = train[[4, 9, 9]].copy()
    test[1] ^= np.array([0b111, 0b11], np.uint64)
    expected = {(4, 0, 0), (9, 1, 5), (9, 2, 0)}
    for block in (1, 7, 23, 100):
        assert {tuple(row) for row in near_pairs(train, test, 5, block).tolist()} == expected
    assert {tuple(r) for r in near_pairs(train, test, 4).tolist()} == expected - {(9, 1, 5)}


@pytest.fixture
def sets(tmp_path):
    """Ten test pictures; of the training pictures one is re-encoded, one resized, one mirrored."""
    for seed in range(10):
        save_image(tmp_path / f"classes/test/thing/{seed}.png", scene(seed))
    folder = tmp_path / "training"
    folder.mkdir()
    copies = {
        "re-encoded": encoded(Image.fromarray(scene(2)), 40),
        "resized": np.asarray(Image.fromarray(scene(5)).resize((100, 100))),
        "mirrored": scene(7)[:, ::-1],
        **{f"other{seed}": scene(seed) for seed in range(20, 40)},
    }
    for name, array in copies.items():
        Image.fromarray(np.ascontiguousarray(array)).save(folder / f"{name}.jpg", quality=90)
    rows = [f"{name}.jpg,a picture" for name in copies]
    (folder / "captions.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    import_folder(folder / "captions.csv", folder, tmp_path / "shards")
    return tmp_path


def test_overlap__finds_the_copies_and_nothing_else(sets):
    test = ImageFolder(sets / "classes", "test")
    shards = ImageTextShards(sets / "shards")
    found = find_overlap(shards, test)
    keys = {shards[i].key: i for i in range(len(shards))}
    assert len(keys) == found.training == 23 and found.unread == 0
    assert {(pair.index, pair.mirrored) for pair in found.pairs} == {
        (2, False),
        (5, False),
        (7, True),
    }
    assert all(pair.key in keys for pair in found.pairs) and found.share == 30
    straight = find_overlap(shards, test, mirrored=False)
    assert {pair.index for pair in straight.pairs} == {2, 5}


def test_overlap__from_the_command_line(sets, capsys):
    out, pairs = sets / "results.jsonl", sets / "pairs.jsonl"
    arguments = ["--data", str(sets / "shards"), "--dataset", "folder", "--root"]
    arguments += [str(sets / "classes"), "--out", str(out), "--pairs", str(pairs)]
    assert main(["datasets", "overlap", *arguments, "--name", "pairs-23"]) == 0
    assert "3 of 10 pictures of classes (30.00 %) are in pairs-23" in capsys.readouterr().out
    (row,) = read_results(out)
    assert (row.metric, row.value, row.model, row.dataset, row.n) == (
        "overlap",
        30,
        "pairs-23",
        "classes",
        10,
    )
    assert row.protocol["threshold"] == 12 and row.protocol["training_images"] == 23
    lines = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert {line["index"] for line in lines} == {2, 5, 7}


def test_overlap__undecodable_pictures_are_counted(sets):
    from cliptex.datasets import overlap

    def damaged(shards, index):
        return None if index < 4 else kept(shards, index)

    kept = overlap._shard_hash
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_shard_hash", damaged)
        found = find_overlap(
            ImageTextShards(sets / "shards"), ImageFolder(sets / "classes", "test")
        )
    assert (found.training, found.unread) == (23, 4)


def test_overlap__readers_of_every_kind(shared_data):
    flickr = shared_data / "flickr8k-mini"
    for dataset in (
        Karpathy(flickr / "dataset_flickr8k.json", "test", images=flickr / "images"),
        VocSegmentation(shared_data / "VOCdevkit", "val"),
        CocoInstances(shared_data / "coco-mini", "val"),
        CocoCaptions(shared_data / "coco-mini", "val"),
        ImageFolder(shared_data / "imagenette-mini", "val"),
    ):
        image = reader_of(dataset)(0)
        assert image.ndim == 3 and image.dtype == np.uint8


def test_overlap__photographs_of_two_sets_are_far_apart(shared_data):
    flickr = shared_data / "flickr8k-mini"
    test = Karpathy(flickr / "dataset_flickr8k.json", "test", images=flickr / "images")
    voc = VocSegmentation(shared_data / "VOCdevkit", "val")
    ours = np.stack([picture_hash(test.image(i)) for i in range(0, 200, 2)])
    theirs = np.stack([picture_hash(voc[i].image) for i in range(0, 80, 2)])
    assert len(near_pairs(ours, theirs, 12)) == 0
    itself = near_pairs(ours, ours, 12)
    assert itself.tolist() == [[i, i, 0] for i in range(len(ours))]
