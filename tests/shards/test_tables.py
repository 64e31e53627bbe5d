"""Tables of captions, as the tools that write them leave them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cliptex.shards.sources import Table, read_table
from cliptex.shards.tables import TableForm


def read(path: Path, *, skip: bool = False, **form: str) -> Table:
    return read_table(path, TableForm(**form), skip_bad_rows=skip)


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        (
            "commas.csv",
            "image,caption\na.jpg,A man, a dog\nb.jpg,A cat\n",
            ["A man, a dog", "A cat"],
        ),
        ("quotes.tsv", 'image\tcaption\na.jpg\t"Stop\nb.jpg\tA 5" cat\n', ['"Stop', 'A 5" cat']),
        ("quoted.csv", 'image,caption\na.jpg,"A ""B"", c"\nb.jpg,"D"\n', ['A "B", c', "D"]),
        (
            "lines.csv",
            'image,caption\na.jpg,"One,\ntwo, three"\nb.jpg,D\n',
            ["One,\ntwo, three", "D"],
        ),
        ("sign.tsv", 'image\tcaption\na.jpg\t"Stop" sign\nb.jpg\tC\n', ['"Stop" sign', "C"]),
        ("spaces.csv", 'image, caption\na.jpg, "A, b"\nb.jpg, C\n', ["A, b", "C"]),
        ("open_clip.csv", "filepath\ttitle\na.jpg\tA, b\nb.jpg\tC\n", ["A, b", "C"]),
        ("semi.csv", "Image Path;Caption\r\na.jpg;A, b\r\nb.jpg;C\r\n", ["A, b", "C"]),
        (
            "results.csv",
            'image_name| comment_number| comment\na.jpg| 0| "A" , b .\nb.jpg| 0| C\n',
            ['"A" , b .', "C"],
        ),
        ("token.txt", "a.jpg#0\tA , b .\nb.jpg#4\tC\n", ["A , b .", "C"]),
        ("results.token", "a.jpg#0\tA\nb.jpg#4\tC\n", ["A", "C"]),
        ("old.csv", "image,caption\ra.jpg,A\rb.jpg,C\r", ["A", "C"]),
        ("long.csv", f"image,caption\na.jpg,{'x' * 200_000}\nb.jpg,C\n", ["x" * 200_000, "C"]),
    ],
)
def test_forms_that_are_guessed(tmp_path: Path, name: str, content: str, rows: list[str]) -> None:
    (tmp_path / name).write_bytes(content.encode())
    limit = csv.field_size_limit()
    table = read(tmp_path / name)
    found = [(image, [" ".join(text.split(" ")).strip() for text in c]) for image, c in table.rows]
    assert found == [("a.jpg", [rows[0]]), ("b.jpg", [rows[1]])]
    assert table.said.startswith(f"{name}: 2 rows, ") and table.bad == ()
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["c.csv", "c.jsonl", "c.json"])
def test_encodings(tmp_path: Path, encoding: str, name: str) -> None:
    objects = [json.dumps({"image": "a.jpg", "caption": "Größe"}, ensure_ascii=False)] * 2
    content = {
        "c.csv": "image,caption\na.jpg,Größe\na.jpg,Größe\n",
        "c.jsonl": "\n".join(objects),
        "c.json": f"[{','.join(objects)}]",
    }[name]
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert read(tmp_path / name).rows == [("a.jpg", ["Größe"])] * 2


def test_damaged_encodings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"image,caption\na.jpg,A\0\0\n")
    with pytest.raises(ValueError, match=r"c\.csv: contains zero bytes.*save it as UTF-8"):
        read(tmp_path / "c.csv")
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(ValueError, match=r"c\.csv: no rows"):
        read(tmp_path / "c.csv")
    (tmp_path / "c.csv").write_bytes("image,caption\na.jpg,A\n".encode("utf-16")[:-1])
    with pytest.raises(ValueError, match=r"c\.csv: damaged UTF-16"):
        read(tmp_path / "c.csv")


def test_quotes_of_another_encoding_do_not_move_the_fields(tmp_path: Path) -> None:
    rows = ["image,caption", "a.jpg,\u201ccaf\u00e9\u201d, shut", "b.jpg,A cat"]
    (tmp_path / "c.csv").write_bytes("\n".join(rows).encode("cp1252"))
    table = read(tmp_path / "c.csv")
    assert table.rows == [("a.jpg", ['"café", shut']), ("b.jpg", ["A cat"])]
    assert "1 lines are not UTF-8" in table.said
    (tmp_path / "c.jsonl").write_bytes(
        '{"image": "a", "caption": "\u201cé\u201d"}'.encode("cp1252")
    )
    assert read(tmp_path / "c.jsonl").rows == [("a", ['"é"'])]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('image,caption\na.jpg,"A"\nb.jpg,"B" C\n', "line 3: a quoted field is damaged"),
        ('image,caption\na.jpg,"A"\nb.jpg,"B\nc.jpg,C\n', "line 3: a quoted field is damaged"),
        ('image,caption\na.jpg,"He said \\"B\\""\n', "line 2: a quote follows a backslash"),
        ('image,caption\na.jpg,"A\nb.jpg,B\nc.jpg,C\n', "line 2: a quoted field is damaged"),
        ('image,caption\na.jpg,"A" and B\nb.jpg,B\n', "line 2: a quoted field is damaged"),
        ('image\tcaption\na.jpg\t"A ""B""\nb.jpg\tB\n', "line 2: a quoted field is damaged"),
        ('image,caption\na.jpg,"A\nb.jpg,B\nc.jpg,C"\n', "line 2: a quoted field goes on over"),
        ('image,caption\n1,"A\n2,B\n3,C"\n', "line 2: a quoted field goes on over lines"),
    ],
)
def test_two_readings_are_no_guess(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "c.csv").write_text(content)
    for skip in (False, True):
        with pytest.raises(ValueError, match=r"c\.csv: " + why + ".*quoting"):
            read(tmp_path / "c.csv", skip=skip)
    assert len(read(tmp_path / "c.csv", quoting="none").rows) == content.count("\n") - 1


def test_quoting_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text('image,caption\na.jpg,"A \\"B\\", c"\n')
    assert read(tmp_path / "c.csv", quoting="backslash").rows == [("a.jpg", ['A "B", c'])]
    (tmp_path / "c.csv").write_text('image,caption\na.jpg,"A\nb.jpg,B\nc.jpg,C"\n')
    assert read(tmp_path / "c.csv", quoting="standard").rows == [("a.jpg", ["A\nb.jpg,B\nc.jpg,C"])]
    (tmp_path / "c.csv").write_text('image,caption\na.jpg,"A"\nb.jpg,"B\nc.jpg,C\n')
    with pytest.raises(ValueError, match=r"c\.csv: line 3: a quote opens here and never closes"):
        read(tmp_path / "c.csv", quoting="standard", skip=True)
    with pytest.raises(ValueError, match="must be one of guess, standard"):
        read(tmp_path / "c.csv", quoting="excel")


@pytest.mark.parametrize(
    ("name", "content", "line", "why"),
    [
        ("c.csv", 'image,caption\na.jpg,"A"\nb.jpg,A man, a dog\n', 3, "3 fields, such as 'a dog'"),
        ("c.csv", 'caption,image\n"A\n\nb",a.jpg\nA, b,c.jpg\n', 5, "3 fields"),
        ("c.csv", "caption,image\nA,a.jpg\nA, b,c.jpg\n", 3, "3 fields"),
        ("c.tsv", "image\tcaption\na.jpg\tA\n\nb.jpg\tB\tC\n", 4, "3 fields"),
        ("c.csv", "image,caption\na.jpg,A\nb.jpg\n", 3, "1 fields, where the header has 2"),
        ("r.csv", "image_name| n| comment\na.jpg| 0| A\nb.jpg| 4   B .\n", 3, "2 fields"),
        ("c.csv", "image,caption\na.jpg,A\n ,B\n", 3, "no image name: ' '"),
        ("t.txt", "a.jpg#0\tA\nb.jpg\tB\n", 2, "not NAME#number"),
        ("c.jsonl", '{"image": "a.jpg", "text": "A"}\n{"image": "b', 2, "not valid JSON"),
        (
            "c.jsonl",
            '{"image": "a.jpg", "text": "A"}\n{"image": 7, "text": "B"}',
            2,
            "no image name: 7",
        ),
        ("c.jsonl", '{"image": "a.jpg", "text": "A"}\n{"image": "b", "text": false}', 2, "False"),
        (
            "c.jsonl",
            '{"image": "a.jpg", "text": "A"}\n{"image": "b", "text": {}}',
            2,
            "{}, expected",
        ),
        (
            "c.jsonl",
            '{"image": "a.jpg", "text": "A"}\n{"image": "b", "text": [1]}',
            2,
            "1, expected",
        ),
        (
            "c.jsonl",
            '{"image": "a.jpg", "text": "A"}\n{"image": "b", "text": "\\ud83d"}',
            2,
            "half",
        ),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, name: str, content: str, line: int, why: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError) as error:
        read(tmp_path / name)
    said = str(error.value)
    assert f"{tmp_path / name}: line {line}: " in said and why in said and "skip_bad_rows" in said
    table = read(tmp_path / name, skip=True)
    assert len(table.rows) == 1 and table.rows[0][0] == "a.jpg"
    assert len(table.bad) == 1 and f"line {line}: " in table.bad[0]


def test_json_lists(tmp_path: Path) -> None:
    rows = [{"Image Path": "a.jpg", "captions": ["A", None, "B"]}, {"Image Path": "b.jpg"}]
    rows += [
        {"Image Path": "c.jpg", "captions": None},
        {"Image Path": "d.jpg", "captions": float("nan")},
    ]
    path = tmp_path / "c.json"
    path.write_text(json.dumps(rows, indent=1))
    expected = [("a.jpg", ["A", "B"]), ("b.jpg", []), ("c.jpg", []), ("d.jpg", [])]
    assert read(path).rows == expected
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert read(path).rows == expected
    path.write_text(json.dumps([*rows, 7]))
    with pytest.raises(ValueError, match=r"c\.json: entry \[4\]: not a JSON object"):
        read(path)
    assert len(read(path, skip=True).bad) == 1
    path.write_text(json.dumps({"images": rows}))
    with pytest.raises(ValueError, match="a captions file in JSON is a list"):
        read(path)
    path.write_text(json.dumps(rows)[:-3])
    with pytest.raises(ValueError, match=r"c\.json: not valid JSON"):
        read(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"c\.json: no rows"):
        read(path)
    with pytest.raises(ValueError, match="JSON has no separator"):
        read(path, separator=";")


def test_columns_and_separators_that_are_given(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("wo:was:text\na.jpg:A, b:C\n")
    form = {"image_column": "wo", "caption_column": "Was", "separator": ":"}
    assert read(path, **form).rows == [("a.jpg", ["A, b"])]
    with pytest.raises(ValueError, match="no column 'wer' among"):
        read(path, **{**form, "image_column": "wer"})
    with pytest.raises(ValueError, match="cannot be image and caption at once"):
        read(path, **{**form, "image_column": "was"})
    path.write_text("image\tcaption\tCaption\na.jpg\tA\tB\n")
    with pytest.raises(ValueError, match="2 columns are called 'caption'"):
        read(path, separator="tab")
    assert read(path, separator="tab", caption_column="Caption").rows == [("a.jpg", ["B"])]
    with pytest.raises(ValueError, match="must be one character"):
        read(path, separator="::")
    path.write_text("a.jpg,A\nb.jpg,B\n")
    with pytest.raises(ValueError, match="no column any of image, .*a first line with the columns"):
        read(path)


@pytest.mark.parametrize(
    ("name", "row"),
    [("c.csv", '"A man, a plan" "b.jpg"'), ("c.tsv", '"he said ""hello""')],
)
def test_quotes_that_both_readings_take_otherwise_are_not_guessed(
    tmp_path: Path, name: str, row: str
) -> None:
    mark = "," if name == "c.csv" else "\t"
    (tmp_path / name).write_text(f"image{mark}caption\na.jpg{mark}{row}\n")
    with pytest.raises(ValueError, match=r"line 2: .*two ways"):
        read(tmp_path / name)
    assert read(tmp_path / name, quoting="none").rows == [("a.jpg", [row])]


def test_a_header_that_two_separators_fit_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    path.write_text("image,caption,more;filepath;title\na.jpg,A dog,x;b.jpg;A cat\n")
    with pytest.raises(ValueError, match=r"both\.csv: the header has both columns by \[',', ';'\]"):
        read(path)
    assert read(path, separator="semicolon").rows == [("b.jpg", ["A cat"])]


def test_rows_whose_captions_have_separators_are_counted(tmp_path: Path) -> None:
    lines = "image,caption\na.jpg,A man, a dog\nb.jpg,A cat\nc.jpg,One, two, three\n"
    (tmp_path / "last.csv").write_text(lines)
    (tmp_path / "tabs.tsv").write_text("image\tcaption\na.jpg\tA\nb.jpg\tC\n")
    assert "the rest of the line in 2 rows" in read(tmp_path / "last.csv").said
    assert "rest of the line" not in read(tmp_path / "tabs.tsv").said
