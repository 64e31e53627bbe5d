"""Names of files made from any text: readable where short, distinct and creatable always."""

import pytest

from cliptex.files import file_name, write_atomic
from cliptex.files.names import DIGITS, LONGEST

LONG = "データセット画像分類用トレーニング素材集二〇二六"  # 24 characters, each of 9 encoded bytes


def test_file_name__short_ones_are_encoded_alone():
    assert file_name("open_clip:ViT-B-16/a b", safe=" ,") == "open_clip%3AViT-B-16%2Fa b"
    assert file_name("m" * LONGEST) == "m" * LONGEST


@pytest.mark.parametrize("text", [LONG, "m" * (LONGEST + 1), "/" * 400])
def test_file_name__long_ones_are_cut_and_stay_apart(text, tmp_path):
    name = file_name(text)
    assert len(name) == LONGEST and name.isascii() and "/" not in name
    assert name[: -DIGITS - 1] == file_name(text + "x")[: -DIGITS - 1]
    assert name != file_name(text + "x")
    path = tmp_path / f"{name}.json"
    write_atomic(path, b"{}")  # by way of a temporary name, which is longer
    assert path.read_bytes() == b"{}"
