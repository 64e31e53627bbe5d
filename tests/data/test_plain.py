"""The plain dataset: forms, alignment of labels with their image, workers, and its page of docs."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cliptex.data.plain import LabelledImages
from cliptex.data.transforms import Augmentation
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.losses import cell_l1

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core

HEIGHT, WIDTH, COUNT = 48, 64, 10
CLASSES = ClassMap(("left", "right"))
METRES, NORMALS = ScalarField("m"), UnitVector()
CROPS = Augmentation(scale=(0.2, 0.5), flip=0.5)
DOCS = Path(__file__).parents[2] / "docs" / "datasets-in-your-trainer.md"


def ramp(height: int, width: int) -> np.ndarray:
    """(height, width, 2): the pixel centre's share of the way from left to right, and down."""
    across = (np.arange(width) + 0.5) / width
    down = (np.arange(height) + 0.5) / height
    return np.stack(np.broadcast_arrays(across[None, :], down[:, None]), axis=-1)


def picture(number: int) -> np.ndarray:
    """Red rises to the right, green downwards; blue tells the sample."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :, :2] = np.rint(255 * ramp(HEIGHT, WIDTH))
    image[:, :, 2] = 20 * number
    return image


def normals_of(number: int) -> np.ndarray:
    """Normals whose x rises from -0.6 to 0.6 with the picture's red."""
    x = 1.2 * ramp(24, 32)[:, :, 0] - 0.6
    return np.stack([x, np.zeros_like(x), np.sqrt(1 - x**2)], axis=-1).astype(np.float32)


@pytest.fixture
def shards(write_shards, encode):
    return write_shards([(encode(picture(i)), f"one {i}\ntwo {i}") for i in range(COUNT)])


@pytest.fixture
def readers(shards, write_labels):
    """Labels of half the images' size; 006 has none, and depth is 1 + red."""
    keys = [f"{i:03d}" for i in range(COUNT) if i != 6]
    depth = (1 + ramp(24, 32)[:, :, 0]).astype(np.float32)
    sides = (ramp(24, 32)[:, :, 0] > 0.5).astype(np.uint8)
    return {
        "depth": write_labels(shards, "depth", METRES, {k: depth for k in keys}),
        "side": write_labels(shards, "side", CLASSES, {k: sides for k in keys}),
        "normals": write_labels(shards, "normals", NORMALS, {k: normals_of(0) for k in keys}),
    }


def test_whole_images_with_labels_of_their_size(shards, readers) -> None:
    dataset = LabelledImages(shards, readers)
    image, text, labels = dataset[3]
    assert len(dataset) == COUNT and dataset.kinds["side"] == CLASSES
    assert image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), picture(3))
    assert text == "one 3\ntwo 3"
    forms = {name: (label.dtype, tuple(label.shape)) for name, label in labels.items()}
    assert forms == {
        "depth": (torch.float32, (HEIGHT, WIDTH)),
        "side": (torch.uint8, (HEIGHT, WIDTH)),
        "normals": (torch.float32, (3, HEIGHT, WIDTH)),
    }
    assert torch.equal(dataset[3 - COUNT][0], image)
    with pytest.raises(IndexError):
        dataset[COUNT]


def test_stored_size(shards, readers) -> None:
    _, _, labels = LabelledImages(shards, readers, stored_size=True)[0]
    assert labels["depth"].shape == (24, 32) and labels["normals"].shape == (3, 24, 32)
    stored = readers["side"].read(*shards.locate(0))
    assert np.array_equal(labels["side"].numpy(), stored.array)


def test_folders_do_as_well_as_open_objects(shards, readers) -> None:
    by_path = LabelledImages(shards.root, {"side": readers["side"].folder})
    assert torch.equal(by_path[0][2]["side"], LabelledImages(shards, readers)[0][2]["side"])


def test_a_missing_label_is_none(shards, readers) -> None:
    assert LabelledImages(shards, readers)[6][2] == {"depth": None, "side": None, "normals": None}


def check_alignment(image: torch.Tensor, labels: dict) -> None:
    """Every label says of each pixel what the picture's red does."""
    red = image[0].float() / 255
    assert (labels["depth"] - 1 - red).abs().max() < 0.02
    clear = (red - 0.5).abs() > 1 / 32  # half a label pixel either side of the border
    assert torch.equal(labels["side"][clear] == 1, red[clear] > 0.5)


@pytest.mark.parametrize("seed", range(8))
def test_labels_follow_crops_and_flips(shards, readers, seed: int) -> None:
    torch.manual_seed(seed)
    dataset = LabelledImages(shards, readers, size=(40, 56), augmentation=CROPS)
    for i in range(4):
        image, _, labels = dataset[i]
        assert image.shape == (3, 40, 56)
        check_alignment(image, labels)
        red = image[0].float() / 255
        mirrored = bool(red[0, 0] > red[0, -1])
        # In a mirror image x changes its sign, so that it falls where red falls.
        x = (1.2 * red - 0.6) * (-1 if mirrored else 1)
        assert (labels["normals"][0] - x).abs().max() < 0.05


def test_crops_and_flips_do_occur_and_obey_the_seed(shards, readers) -> None:
    dataset = LabelledImages(shards, readers, size=(16, 16), augmentation=CROPS)
    torch.manual_seed(1)
    first = [dataset[0][0] for _ in range(20)]
    torch.manual_seed(1)
    again = [dataset[0][0] for _ in range(20)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({x.numpy().tobytes() for x in first}) == 20
    mirrored = [bool(x[0, 0, 0] > x[0, 0, -1]) for x in first]
    assert 4 < sum(mirrored) < 16


def test_size_without_augmentation_is_the_whole_image(shards, readers) -> None:
    image, _, labels = LabelledImages(shards, readers, size=(12, 16))[2]
    expected = torch.from_numpy(255 * ramp(12, 16)[:, :, 0])
    assert (image[0] - expected).abs().max() < 3  # borders are blurred inwards
    check_alignment(image, labels)


def test_normalised_by_the_whole_image(shards, readers) -> None:
    torch.manual_seed(0)
    crops = LabelledImages(shards, readers, size=(20, 20), augmentation=CROPS, normalise=True)
    image, _, labels = crops[0]
    # 1 + red has median 1.5 and mean absolute deviation 0.25.
    assert (labels["depth"] - (image[0] / 255 - 0.5) / 0.25).abs().max() < 0.08


def test_batches_mark_what_is_missing(shards, readers) -> None:
    dataset = LabelledImages(shards, readers, size=(12, 16))
    images, texts, targets = dataset.collate([dataset[i] for i in (5, 6, 7)])
    assert images.shape == (3, 3, 12, 16) and texts[1] == "one 6\ntwo 6"
    assert targets.keys() == readers.keys()
    for target in targets.values():
        assert target.present.tolist() == [True, False, True]
        assert target.valid[0].all() and not target.valid[1].any() and target.weight is None
    depth = targets["depth"].target
    assert depth.shape == (3, 1, 12, 16) and (depth[1] == 0).all()
    assert torch.equal(depth[0, 0], dataset[5][2]["depth"])  # metres: not normalised
    assert targets["side"].target[1].unique().tolist() == [255]
    assert torch.equal(targets["normals"].target[2], dataset[7][2]["normals"])
    loss = cell_l1(torch.ones(3, 1, 3, 4), depth, targets["depth"].valid)
    assert loss.item() == pytest.approx(0.5, abs=1e-2)  # depth is 1.5 on mean


def test_batches_of_unequal_sizes_name_the_remedy(write_shards, encode) -> None:
    tall = encode(np.zeros((9, 4, 3), np.uint8))
    shards = write_shards([(encode(picture(0)), ""), (tall, "")])
    dataset = LabelledImages(shards, {})
    with pytest.raises(ValueError, match=r"size=\(height, width\)"):
        dataset.collate([dataset[0], dataset[1]])


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_give_what_the_process_itself_gives(
    shards, readers, context: str, workers: int
) -> None:
    dataset = LabelledImages(shards, readers, size=(12, 16))
    dataset[0]  # files are open before the fork
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=workers,
        collate_fn=dataset.collate,
        multiprocessing_context=context,
    )
    seen = 0
    for images, texts, targets in loader:
        rows = range(seen, seen + len(texts))
        expected = dataset.collate([dataset[i] for i in rows])
        assert torch.equal(images, expected[0]) and texts == expected[1]
        for name, target in targets.items():
            assert torch.equal(target.target, expected[2][name].target)
            assert torch.equal(target.present, expected[2][name].present)
        seen += len(texts)
    assert seen == COUNT


def test_workers_draw_different_crops(shards, readers) -> None:
    dataset = LabelledImages(shards, {}, size=(16, 16), augmentation=CROPS)
    torch.manual_seed(3)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, sampler=[0, 0, 0, 0])
    pictures = {image.numpy().tobytes() for image, _, _ in loader}
    assert len(pictures) == 4
    epochs = {image.numpy().tobytes() for image, _, _ in loader}  # the next epoch
    assert not pictures & epochs


def test_a_pickled_dataset_is_the_same(shards, readers) -> None:
    dataset = LabelledImages(shards, readers, size=(12, 16))
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[4][2]["depth"], dataset[4][2]["depth"])


def test_confidence_comes_along(shards, write_reliable) -> None:
    arrays = {f"{i:03d}": np.full((24, 32), 2.0, np.float32) for i in range(COUNT)}
    half = np.array([[1.0, 0.0]], np.float32)
    reader = write_reliable(shards, "sure", METRES, arrays, {"000": half})
    dataset = LabelledImages(shards, {"depth": reader}, size=(8, 8), confidence={"depth"})
    known = dataset[0][2]["depth:confidence"]
    assert known.shape == (8, 8) and known[0, 0] == 1 and known[0, -1] == 0
    assert dataset[1][2]["depth:confidence"] is None
    _, _, targets = dataset.collate([dataset[0], dataset[1]])
    assert list(targets) == ["depth"]
    assert (
        torch.equal(targets["depth"].weight[0], known) and (targets["depth"].weight[1] == 1).all()
    )


def test_transform_comes_last(shards, readers) -> None:
    def only_depth(image, text, labels):
        return image.float() / 255, labels["depth"]

    image, depth = LabelledImages(shards, readers, size=(8, 8), transform=only_depth)[0]
    assert image.max() <= 1 and depth.shape == (8, 8)


def test_a_broken_image_gives_way_with_all_its_labels(write_shards, write_labels, encode) -> None:
    good = [encode(picture(i)) for i in range(3)]
    shards = write_shards([(good[0], "a"), (good[1][:60], "b"), (good[2], "c")])
    arrays = {f"{i:03d}": np.full((4, 4), i + 1, np.float32) for i in range(3)}
    dataset = LabelledImages(shards, {"depth": write_labels(shards, "depth", METRES, arrays)})
    image, text, labels = dataset[1]
    assert text == "c" and image[2, 0, 0] == 40 and labels["depth"].unique().tolist() == [3]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"augmentation": CROPS}, "augmentation: crops need a size"),
        ({"size": (8, 8), "stored_size": True}, "stored_size"),
        ({"confidence": {"depth"}}, "confidence: there are no labels 'depth'"),
        ({"confidence": {"nothing"}}, "confidence: there are no labels 'nothing'"),
    ],
)
def test_what_does_not_go_together(shards, readers, arguments, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LabelledImages(shards, readers, **arguments)


def test_labels_of_other_images_are_refused(shards, readers, tmp_path, encode) -> None:
    from cliptex.shards.write import ShardWriter

    with ShardWriter(tmp_path / "other", prefix="other") as writer:
        writer.add("a", encode(picture(0)), "png", "")
    with pytest.raises(ValueError, match="belong to the data set"):
        LabelledImages(tmp_path / "other", readers)


def test_the_docs_example_runs(shards, write_labels, tmp_path, monkeypatch) -> None:
    """On a store that is half finished: the second of three shards has no labels yet."""
    for name, kind, array in (
        ("playroom-depth", ScalarField("1/m"), normals_of(0)[:, :, 2]),
        ("playroom-segmentation", CLASSES, np.ones((24, 32), np.uint8)),
    ):
        reader = write_labels(shards, name, kind, {f"{i:03d}": array for i in range(COUNT)})
        for path in Path(reader.folder).glob("*1.*"):
            path.unlink()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "web").symlink_to(shards.root)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert [x["depth"] is None for _, _, x in names["dataset"]] == [False] * 4 + [True] * 4 + [
        False
    ] * 2
    assert names["head"].weight.grad.abs().max() > 0
