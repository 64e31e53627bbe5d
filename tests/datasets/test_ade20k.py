"""ADE20K: class ids, names and splits."""

import numpy as np
import pytest
from PIL import Image

from cliptex.datasets import Ade20k


def test_ade__ids_and_sizes_of_other_masks_are_refused(ade):
    mask = ade / "annotations/validation/ADE_val_00000000.png"
    for value in (151, 255, 256):  # 256 would be "other" in 8 bits
        Image.fromarray(np.full((2, 3), value, np.uint16)).save(mask)
        with pytest.raises(ValueError, match=f"00000000.png: class id {value},.*0 to 150: "):
            Ade20k(ade, "validation")[0]
    Image.fromarray(np.zeros((3, 2), np.uint8)).save(mask)
    with pytest.raises(ValueError, match="00000000.png has 3x2 .*00000000.jpg has 2x3"):
        Ade20k(ade, "validation")[0]


def test_ade__other_becomes_ignored_and_classes_start_at_zero(ade):
    train = Ade20k(ade, "training")
    assert (len(train), len(Ade20k(ade, "validation"))) == (3, 2)
    np.testing.assert_array_equal(train[0].target, [[255, 0, 149], [1, 255, 2]])
    assert len(train.kind.classes) == 150 and train.kind.ignore == 255
    assert len(Ade20k(ade.parent, "training")) == 3


def test_ade__names(ade):
    (ade / "classes.txt").write_text("wall\nfloor\nchair\n")
    assert Ade20k(ade, "training").kind.classes == ("wall", "floor", "chair")
    (ade / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0.15\t11664\t1172\twall\n2\t0.1\t6046\t612\tbed, cot\n"
    )
    assert Ade20k(ade, "training").kind.classes == ("wall", "bed")


def test_ade__missing_split(ade):
    with pytest.raises(ValueError, match=r"no split 'test', only \['training', 'validation'\]"):
        Ade20k(ade, "test")
    with pytest.raises(FileNotFoundError, match="annotations/SPLIT"):
        Ade20k(ade / "images", "training")
