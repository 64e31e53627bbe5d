from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliptex.shards import captions
from cliptex.shards.captions import clean_caption, clean_captions, decode_caption

NASTY = st.text(
    st.sampled_from("aAb<>/&;%25+lgt#x \n\t'\"é\u00a0\u2028\u0130ﬁ\u00e2\u20ac\u2122\x1b[0m"),
    max_size=40,
)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A Dog  on\tthe\nBeach", "a dog on the beach"),
        ("red%20car+park", "red car park"),
        ("<b>Two</b> cats<br/>asleep", "two cats asleep"),
        ("schÃ¶n", "schön"),
        ("fish &amp; chips", "fish & chips"),
        ("5 < 7 people > none", "5 < 7 people > none"),
        ("&lt;i&gt;tag&lt;/i&gt;", "tag"),
        ("", ""),
        ("   ", ""),
        ("caf\u00e9\u00a0noir", "café noir"),
    ],
)
def test_cleaning(raw: str, clean: str) -> None:
    assert clean_caption(raw) == clean


@settings(deadline=None)  # a busy machine is no failure
@given(st.text() | NASTY)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_caption(text)
    assert clean_caption(once) == once
    assert once == " ".join(once.split())


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=126, exclude_characters="%&+<>"), max_size=30))
def test_the_short_cut_for_plain_text_gives_the_same(text: str) -> None:
    slow = text
    for _ in range(5):
        slow = captions._clean_once(slow)
    assert clean_caption(text) == slow


@settings(deadline=None)
@given(st.text() | NASTY)
def test_captions_stay_one_per_line(text: str) -> None:
    cleaned = clean_captions(text)
    assert clean_captions(cleaned) == cleaned
    assert all(line.strip() for line in cleaned.splitlines())


def test_deeply_quoted_text_ends() -> None:
    assert clean_caption("%25" * 1 + "25" * 500 + "20a") == "a"


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_a_caption(data: bytes) -> None:
    assert isinstance(decode_caption(data), str)


def test_captions_that_are_not_utf8() -> None:
    assert decode_caption("un café".encode("latin-1")) == "un café"
    assert decode_caption("it\u2019s".encode("cp1252")) in ("it's", "it\u2019s")
    assert decode_caption(b"\xef\xbb\xbfa dog") == "a dog"
    assert decode_caption("größe".encode()) == "größe"
