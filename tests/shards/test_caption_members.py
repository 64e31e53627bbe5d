"""Where a sample's captions are, in which order, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cliptex.shards.captions import CaptionError, decode_caption
from cliptex.shards.check import check
from cliptex.shards.dataset import ImageTextShards

MakeTar = Callable[..., Path]
Picture = Callable[..., bytes]


@pytest.fixture
def opened(tmp_path: Path, make_tar: MakeTar, picture: Picture) -> Callable[..., ImageTextShards]:
    """opened({extension: content}, ...) -> shards of the one sample "k"."""

    def run(members: dict[str, bytes], **options: str) -> ImageTextShards:
        content = [(f"k.{extension}", data) for extension, data in members.items()]
        path = make_tar(tmp_path / "a.tar", [("k.jpg", picture(0)), *content])
        return ImageTextShards(path, **options)

    return run


TXT, TEXT, CAPTION = {"txt": b"of txt"}, {"text": b"of text"}, {"caption": b"of caption"}
JSON = {"json": b'{"caption": "of json", "other": ["one", "two"], "text": "another"}'}


@pytest.mark.parametrize(
    ("members", "text", "source"),
    [
        (JSON | CAPTION | TEXT | TXT, "of txt", "KEY.txt"),
        (JSON | CAPTION | TEXT, "of text", "KEY.text"),
        (JSON | CAPTION, "of caption", "KEY.caption"),
        (JSON, "of json", "KEY.json"),
        ({"caption": b"one\ntwo"}, "one\ntwo", "KEY.caption"),
        ({"json": b'{"captions": ["One  A", "two\\nlines"]}'}, "one a\ntwo lines", "KEY.json"),
        ({"json": b'{"text": "t"}'}, "t", "KEY.json"),
        ({"json": b'\xef\xbb\xbf{"caption": "marked"}'}, "marked", "KEY.json"),
        ({"json": b'{"caption": null}'}, "", "KEY.json"),
        ({"json": b'{"width": 3}'}, "", "KEY.json"),
        ({"txt": b"", **JSON}, "", "KEY.txt"),
        ({}, "", ""),
    ],
)
def test_order_of_sources(
    opened: Callable, members: dict[str, bytes], text: str, source: str
) -> None:
    shards = opened(members)
    assert shards[0].text == shards.read_caption(0) == text
    assert shards.caption_source(0) == source
    report = check(shards)
    assert report.sources == ({source: 1} if text else {})
    assert report.ok == bool(text)
    if text:
        assert f"1  with captions in {source}" in str(report)


def test_a_named_field_precedes_all(opened: Callable) -> None:
    shards = opened(TXT | JSON, caption_key="other")
    assert shards[0].captions == ("one", "two") and shards.caption_source(0) == "KEY.json"
    with pytest.raises(CaptionError, match=r"k\.json: no field 'alt'; it has 'caption', 'other'"):
        opened(TXT | JSON, caption_key="alt").read_caption(0)
    with pytest.raises(CaptionError, match=r"k\.json: no such member, whose field 'alt'"):
        opened(TXT, caption_key="alt").read_caption(0)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not complete JSON"),
        (b'{"caption": "cut', "not complete JSON"),
        (b"\xff\xfe\x00", "not complete JSON"),
        (b"[" * 100_000, "not complete JSON"),
        (b'["a caption"]', "a JSON list, not an object"),
        (b"null", "a JSON null, not an object"),
        (b'{"caption": 3}', "holds 3, which is not text"),
        (b'{"caption": NaN}', "holds NaN, which is not text"),
        (b'{"caption": ["a", null]}', "holds null, which is not text"),
        (b'{"caption": {"en": "a"}}', "which is not text"),
        (rb'{"caption": "half \ud83d"}', "half of a surrogate pair"),
    ],
)
def test_json_that_cannot_be_read_is_one_line(opened: Callable, data: bytes, why: str) -> None:
    shards = opened({"json": data})
    with pytest.raises(CaptionError) as caught:
        shards.read("a.tar", "k")
    text = str(caught.value)
    assert "a.tar: k.json: " in text and why in text and "repair it" in text and "\n" not in text
    assert shards.read_image("a.tar", "k")  # labels do not need it
    report = check(shards)
    assert report.counts == {"unreadable text": 1} and why in str(report)
    assert opened({"json": data} | TXT).read_caption(0) == "of txt"  # where it is not asked for


def test_a_whole_surrogate_pair_is_a_character(opened: Callable) -> None:
    data = json.dumps({"caption": "\N{GRINNING FACE}"}).encode()
    assert b"\\ud83d" in data
    assert opened({"json": data}).read_caption(0) == "\N{GRINNING FACE}"


@pytest.mark.parametrize("data", [b"a \xed\xa0\xbd b", b"\xed\xa0\xbd\xed\xb8\x80", b"\x00\xff"])
def test_a_text_with_half_a_pair_can_be_encoded(opened: Callable, data: bytes) -> None:
    assert decode_caption(data).encode()
    assert opened({"txt": data}).read_caption(0).encode()
