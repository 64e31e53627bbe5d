from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cliptex.per_image import save_per_image
from cliptex.report import page, write_report
from cliptex.report.figures import BETTER, loss_curves, read_losses
from cliptex.report.page import protocol_rows
from cliptex.results import append_results

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Balanced(HTMLParser):
    """Fails on a tag that closes what is not open, and collects addresses and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        self.ids += [v for k, v in attrs if k == "id" and v]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parse(path: Path) -> tuple[str, Balanced]:
    text = path.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    return text, parser


def test_page_is_whole_and_self_contained(run_folder):
    out = run_folder / "report.html"
    write_report(run_folder, out, title="A & B")
    text, parser = parse(out)
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in parser.addresses)
    assert len(parser.ids) == len(set(parser.ids)), "figures share element ids"
    assert not re.search(r"<link|<script|@import|url\((?!#)", text)
    for expected in (
        "A &amp; B",
        "Some &lt;samples&gt;",
        "CLIPTeX improves on CLIP-FT in 2 of 2 dense tests.",
        "27.0 ± 3.0",
        "+5.0 [+2.5, +7.5]",
        "expert-segmentation",
        "61.2 %",
        "share of the gain with perfect labels",
        "Losses by step",
        "12.5",
        "&#34;steps&#34;: 77",
        "resolution: 128",
    ):
        assert expected in text, expected
    assert "Not on this page" not in text


def test_page_without_the_other_parts_says_so(tmp_path, rows):
    only = [row for row in rows if row.model == "clip"]
    append_results(tmp_path / "results.jsonl", only)
    write_report(tmp_path, tmp_path / "out.html", title="t")
    text, _ = parse(tmp_path / "out.html")
    for expected in (
        "no rows of CLIP-FT",
        "no rows of CLIPTeX",
        "no sample pictures",
        "no training logs",
        "There are no results of CLIPTeX and CLIP-FT on the same test and seed.",
    ):
        assert expected in text, expected


def test_protocol_says_first_what_all_share(make_row):
    rows = [
        make_row("clip", 1.0, protocol={"crop": None, "lr": 0.1, "class_iou": {"a": 1.0}}),
        make_row("cliptex", 1.0, protocol={"crop": None, "lr": 0.2}),
    ]
    assert protocol_rows(rows) == [
        ("Depth · d · n = 9", "all", "crop: null"),
        ("Depth · d · n = 9", "CLIP, 0", "lr: 0.1"),
        ("Depth · d · n = 9", "CLIPTeX, 0", "lr: 0.2"),
    ]


def test_protocol__the_mean_answer_takes_nothing_from_what_the_others_share(make_row):
    rows = [make_row(m, 1.0, protocol={"crop": None, "epochs": 1}) for m in ("clip", "cliptex")]
    rows += [make_row("mean prediction", 1.0, protocol={"crop": None, "prediction": "mean"})]
    assert protocol_rows(rows) == [
        ("Depth · d · n = 9", "all but mean answer, 0", "crop: null\nepochs: 1"),
        ("Depth · d · n = 9", "mean answer, 0", 'crop: null\nprediction: "mean"'),
    ]


def test_protocol__rules_of_single_metrics_say_whose_they_are(make_row):
    rows = [
        make_row("clip", 1.0, metric="miou", protocol={"crop": None}),
        make_row("clip", 1.0, metric="miou_things", protocol={"crop": None, "metric": "8"}),
        make_row("clip", 1.0, metric="miou_foreground", protocol={"crop": None, "metric": "9"}),
    ]
    ((_, _, told),) = protocol_rows(rows)
    assert told.splitlines() == [
        "crop: null",
        'metric of miou_foreground: "9"',
        'metric of miou_things: "8"',
    ]


def test_differences_over_images_are_shown_where_values_lie(run_folder, rows):
    pair = [r for r in rows if r.task == "depth" and r.model in ("cliptex", "clip-ft")]
    for row in pair:
        values = np.full(20, row.value)
        values[3] = np.nan  # an image without a valid pixel
        save_per_image(run_folder / "per_image", row, values)
    write_report(run_folder, run_folder / "out.html", title="t")
    text, _ = parse(run_folder / "out.html")
    assert "Differences over test images" in text
    assert "−0.100 [−0.100, −0.100]" in text


def test_runs_of_several_seeds_make_one_page(tmp_path, rows):
    folders = []
    for seed in range(3):
        folders.append(tmp_path / f"seed{seed}")
        append_results(folders[-1] / "results.jsonl", [r for r in rows if r.seed == seed])
    write_report(folders, tmp_path / "all.html", title="t")
    text, _ = parse(tmp_path / "all.html")
    assert "27.0 ± 3.0" in text and "seeds 0, 1, 2" in text


def test_page__tests_of_other_images_stand_apart(run_folder, make_row):
    rows = [make_row("cliptex", 0.5, n=4), make_row("clip-ft", 0.5, n=8)]
    for row in rows:
        save_per_image(run_folder / "per_image", row, np.full(row.n, row.value))
    append_results(run_folder / "results.jsonl", rows)
    write_report(run_folder, run_folder / "out.html", title="t")
    text, _ = parse(run_folder / "out.html")
    assert "n = 4" in text and "n = 8" in text and "Differences over test images" not in text


def test_page__what_is_not_like_for_like_is_marked_everywhere(tmp_path, make_row):
    epochs = (("clip-ft", 1), ("cliptex", 2))
    rows = [make_row(m, 0.5, protocol={"epochs": e}, n=300) for m, e in epochs]
    for row in rows:
        save_per_image(tmp_path / "per_image", row, np.full(300, row.value))
    append_results(tmp_path / "results.jsonl", rows)
    write_report(tmp_path, tmp_path / "out.html", title="t")
    text, _ = parse(tmp_path / "out.html")
    assert "1 of them not like for like" in text  # the headline
    assert re.search(r"<text[^>]*>depth AbsRel · d ≠</text>", text)  # the chart
    assert "≠ epochs 1 / 2" in text and "<td>+0.000 [+0.000, +0.000] ≠</td>" in text  # the table
    assert "<td>depth AbsRel · d ≠</td>" in text  # over test images
    assert "≠ not like for like: " in text  # what the sign means


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The lines on standard error."""
    lines: list[str] = []
    monkeypatch.setattr(page, "say", lines.append)
    return lines


@pytest.mark.parametrize("role", ["baseline", "ours", "start"])
def test_models_that_do_not_exist_are_refused_with_those_that_do(run_folder, role):
    out = run_folder / "out.html"
    with pytest.raises(ValueError, match=rf"`{role}` strat: no such model, .* hold clip, clip-ft,"):
        write_report(run_folder, out, title="t", **{role: "strat"})
    assert not out.exists()


def test_a_page_that_compares_nothing_says_so(tmp_path, make_row, said):
    rows = [make_row("start", 0.5, n=300), make_row("mine", 0.4, n=300)]
    append_results(tmp_path / "results.jsonl", rows)
    write_report(tmp_path, tmp_path / "out.html", title="t")
    (line,) = said
    assert "cliptex (`ours`) and clip-ft (`baseline`)" in line and "hold start, mine" in line
    write_report(tmp_path, tmp_path / "out.html", title="t", ours="mine", baseline="start")
    assert len(said) == 1


def test_a_results_file_stands_for_its_folder(run_folder, rows):
    append_results(run_folder / "more.jsonl", [r.model_copy(update={"dataset": "x"}) for r in rows])
    write_report(run_folder / "more.jsonl", run_folder / "out.html", title="t")
    text, _ = parse(run_folder / "out.html")
    assert "Some &lt;samples&gt;" in text and "playroom-voc" not in text
    write_report([run_folder / "more.jsonl", run_folder], run_folder / "both.html", title="t")
    text, _ = parse(run_folder / "both.html")
    assert text.count("<h3>Some &lt;samples&gt;</h3>") == 1 and "playroom-voc" in text


def test_class_gaps_come_from_the_protocol(tmp_path, rows):
    iou = {"clip-ft": {"chair": 10.0, "lamp": None}, "cliptex": {"chair": 15.5, "lamp": 3.0}}
    support = {"chair": [1_200_000, 34], "lamp": [0, 0]}
    changed = [
        row.model_copy(update={"protocol": {"class_iou": iou[row.model], "class_support": support}})
        for row in rows
        if row.task == "segmentation" and row.model in iou
    ]
    append_results(tmp_path / "results.jsonl", changed)
    write_report(tmp_path, tmp_path / "out.html", title="t")
    text, _ = parse(tmp_path / "out.html")
    assert "Per class" in text and ">chair · 34 images, 1.2 M px<" in text and "lamp" not in text
    assert "mean over seeds 0, 1, 2" in text


def test_controls_are_shown_apart_and_held_against_the_gains(tmp_path, rows):
    def headline(extra):
        (tmp_path / "results.jsonl").unlink(missing_ok=True)
        append_results(tmp_path / "results.jsonl", [*rows, *extra])
        write_report(tmp_path, tmp_path / "out.html", title="t")
        text, _ = parse(tmp_path / "out.html")
        found = re.search(r'<div class="headline">.*?</div>', text, re.S)
        assert found
        return text, found[0]

    def controls(higher, lower):
        return [
            row.model_copy(
                update={"model": name, "value": higher if row.better == "higher" else lower}
            )
            for row in rows
            if row.model == "cliptex"
            for name in ("random-init", "pixels", "mean prediction")
        ]

    text, said = headline([])
    assert "have learnt nothing" not in text and "no control was probed" in said.lower()
    text, said = headline(controls(0.0, 9.0))
    assert text.count('<tr class="control">') == 9 and "have learnt nothing" in text
    assert "in 2 of 2 dense tests" in said and "no control was probed" not in said.lower()
    assert "<td>+27.0 [+19.5, +34.5]</td>" in text  # the lead over each, in the table of verdicts
    text, said = headline(controls(99.0, 0.0))
    assert "shows no gain over CLIP-FT in any of 2 dense tests" in said
    assert (
        "AbsRel 0.400 → 0.320 (random weights 0.000; pixels and places 0.000; mean answer" in said
    )


def test_controls_say_whose_they_are(tmp_path, make_row):
    owner = {"control_of": {"model": "clip-ft", "checkpoint": "c"}}
    append_results(tmp_path / "results.jsonl", [make_row("pixels", 1.0, protocol=owner)])
    write_report(tmp_path, tmp_path / "out.html", title="t")
    text, _ = parse(tmp_path / "out.html")
    assert "<td>pixels and places of CLIP-FT</td>" in text


@pytest.mark.parametrize(("steps", "n"), [(30, 300), (400, 120)])
def test_a_smoke_run_says_so_on_its_page_and_in_the_terminal(tmp_path, make_row, said, steps, n):
    rows = [
        make_row(model, value + seed / 1000, seed=seed, n=n)
        for model, value in (("clip-ft", 0.4), ("cliptex", 0.3))
        for seed in range(3)
    ]
    append_results(tmp_path / "results.jsonl", rows)
    (tmp_path / "train-a").mkdir()
    (tmp_path / "train-a" / "config.yaml").write_text(f"steps: {steps}\n")
    write_report(tmp_path, tmp_path / "out.html", title="t")
    text, _ = parse(tmp_path / "out.html")
    reason = "trainings of 30 steps" if steps == 30 else "tests of at most 120 images"
    assert f"<p>Smoke run ({reason}): " in text and "<h1>t · smoke run</h1>" in text
    assert "improves" not in text and "no claim (smoke run)" not in text  # no controls, no table
    assert "of a smoke run, all are grey" in text and BETTER not in text
    assert [line for line in said if f"out.html: a smoke run ({reason})" in line]


def test_one_seed_has_its_intervals_over_images(tmp_path, make_row):
    rows = [make_row(model, value, n=300) for model, value in (("clip-ft", 0.4), ("cliptex", 0.3))]
    for row in rows:
        noise = np.random.default_rng(0).normal(0, 0.1, 300)
        save_per_image(tmp_path / "per_image", row, noise - noise.mean() + row.value)
    append_results(tmp_path / "results.jsonl", rows)
    write_report(tmp_path, tmp_path / "out.html", title="t")
    text, _ = parse(tmp_path / "out.html")
    assert "CLIPTeX improves on CLIP-FT in 1 of 1 dense test." in text
    assert "Of one seed, the 95 % intervals are over the test images" in text
    assert "<td>−0.100 [−0.100, −0.100]</td>" in text  # the table's difference


def test_logs_of_the_run_folder_itself_are_found(tmp_path, make_row):
    append_results(tmp_path / "results.jsonl", [make_row("cliptex", 0.5)])
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n')
    write_report(tmp_path, tmp_path / "out.html", title="t")
    text, _ = parse(tmp_path / "out.html")
    assert "Losses by step" in text and "no training logs" not in text


def test_controls_of_two_architectures_do_not_clash(tmp_path, make_row):
    rows = [make_row("pixels", v, protocol={"encoder_stride": s}) for v, s in ((1.0, 8), (2.0, 32))]
    append_results(tmp_path / "results.jsonl", [make_row("clip", 0.5), *rows])
    write_report(tmp_path, tmp_path / "out.html", title="t")
    text, _ = parse(tmp_path / "out.html")
    assert "<td>pixels and places (2)</td>" in text and "another control of the same kind" in text


def test_overlap_rows_have_a_table_and_no_column(tmp_path, rows, make_row):
    overlap = make_row(
        "flickr30k", 12.5, task="data", dataset="flickr8k", metric="overlap", better="lower", n=40
    )
    append_results(tmp_path / "results.jsonl", [*rows, overlap])
    write_report(tmp_path, tmp_path / "out.html", title="t")
    text, _ = parse(tmp_path / "out.html")
    assert "Test images that training may have seen" in text
    cells = ("flickr8k", "flickr30k", r"5 \(12.50 %\)", "40")
    assert re.search("".join(f"<td[^>]*>{cell}</td>" for cell in cells), text)
    assert "<h3>data</h3>" not in text


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        ("{", "panel.json: a panel is"),
        ('{"title": "t", "columns": ["a"]}', "panel.json: a panel is.*rows"),
        ('{"title": "t", "columns": [], "rows": [["a.png"]]}', "needs 0 pictures"),
        ('{"title": "t", "columns": ["a"], "rows": [["log.txt"]]}', "log.txt: pictures"),
    ],
)
def test_bad_panels_name_their_file(run_folder, panel, message):
    (run_folder / "panels/panel.json").write_text(panel)
    with pytest.raises(ValueError, match=message):
        write_report(run_folder, run_folder / "out.html", title="t")
    assert not (run_folder / "out.html").exists()


def test_missing_results_are_an_error_that_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"results\.jsonl"):
        write_report(tmp_path, tmp_path / "out.html", title="t")


def test_log_of_a_killed_run(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 2, "loss": 1}\n{"st')
    assert read_losses(log) == {"loss": ([1, 2], [3, 1])}
    log.write_text("")
    assert loss_curves({"run": log}) == ""


def test_figures_are_well_formed_and_repeatable(run_folder):
    logs = {"train": run_folder / "train/log.jsonl"}
    svg = loss_curves(logs)
    assert svg == loss_curves(logs)
    assert ElementTree.fromstring(svg).get("viewBox")
    assert "currentColor" in svg and "#010203" not in svg


def test_report_imports_no_torch():
    code = "import sys, cliptex.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
