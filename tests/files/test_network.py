"""A web server that misbehaves: waited for within a bound, then named in one line."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from upath import UPath

from cliptex.files import (
    as_path,
    exists,
    network,
    open_random,
    read_bytes,
    sha256_file,
    walk,
    write_atomic,
)
from cliptex.labels.manifest import read_manifest
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter

pytest.importorskip("aiohttp")


class Moody(SimpleHTTPRequestHandler):
    """Serves /MOOD/PATH from the folder as the mood says; counts requests."""

    asked: Counter[str]
    over: threading.Event

    def do_HEAD(self) -> None:
        self._answer(super().do_HEAD)

    def do_GET(self) -> None:
        self._answer(self._get)

    def _answer(self, kindly: Callable[[], None]) -> None:
        mood, _, rest = self.path.removeprefix("/").partition("/")
        self.asked[self.path] += 1
        first = self.asked[self.path] == 1
        if mood == "silent":
            self.over.wait(10)
            return
        if mood == "busy" or (mood == "once" and first):
            self.send_error(503)
            return
        if mood == "loop" or mood == "away":
            self.send_response(302)
            self.send_header("Location", self.path if mood == "loop" else f"/good/{rest}")
            self.end_headers()
            return
        if mood == "shut":
            self.send_error(403)
            return
        self.half = mood == "half" or (mood == "hiccup" and first)
        self.path = f"/{rest}"
        kindly()

    def _get(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return super().do_GET()
        data, wanted = path.read_bytes(), self.headers.get("Range", "")
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        if found:
            data = data[int(found[1]) : int(found[2]) + 1]
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {found[1]}-{found[2]}/{path.stat().st_size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.half else data)

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """Two pairs in a tar of a folder."""
    with ShardWriter(tmp_path / "served" / "deep", prefix="x") as writer:
        for key in "ab":
            writer.add(key, b"\xff\xd8 a picture", "jpg", f"picture {key}")
    return tmp_path / "served"


@pytest.fixture
def server(served: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(network, "PAUSE", 0.001)
    monkeypatch.setattr(network, "SILENCE", 0.3)
    Moody.asked, Moody.over = Counter(), threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Moody, directory=str(served))) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        Moody.over.set()
        http.shutdown()
        thread.join()


TAR = "deep/x-00000.tar"


@pytest.mark.parametrize("mood", ["good", "once", "away", "hiccup"])
def test_what_passes_is_waited_for(server: str, served: Path, mood: str, tmp_path: Path) -> None:
    whole = (served / TAR).read_bytes()
    path = as_path(f"{server}/{mood}/{TAR}")
    assert open_random(path).read(0, len(whole)) == whole
    assert read_bytes(path) == whole and exists(path)
    assert sha256_file(path) == sha256_file(served / TAR)
    assert not exists(as_path(f"{server}/{mood}/none"))
    shards = ImageTextShards(f"{server}/{mood}/{TAR}", cache=tmp_path / "cache")
    assert [sample.text for sample in shards] == ["picture a", "picture b"]
    if mood != "away":  # a listing's links lead below the folder that was asked for
        assert list(walk(as_path(f"{server}/{mood}"))) == [TAR]


@pytest.mark.parametrize(
    ("mood", "why"),
    [
        ("busy", r"no complete answer in 4 tries \(HTTP status 503\); run the same command later"),
        ("silent", r"no complete answer in 4 tries \(no answer within 0\.3 s\)"),
        ("loop", "TooManyRedirects: .*check the address"),
        ("shut", "HTTP status 403; check the address and who may read it"),
    ],
)
def test_what_does_not_pass_is_named_in_one_line(
    server: str, mood: str, why: str, tmp_path: Path
) -> None:
    url = f"{server}/{mood}/{TAR}"
    calls: list[Callable[[], object]] = [
        lambda: ImageTextShards(url, cache=tmp_path / "cache"),
        lambda: ImageTextShards(f"{server}/{mood}", cache=tmp_path / "cache"),
        lambda: exists(as_path(url)),
        lambda: read_manifest(as_path(f"{server}/{mood}/labels")),
    ]
    for call in calls[: 2 if mood == "silent" else None]:
        Moody.asked.clear()
        with pytest.raises(OSError, match=f"{server}/{mood}.*: {why}") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert max(Moody.asked.values()) <= 2 * 4 * (11 if mood == "loop" else 1)


def test_a_body_that_breaks_off__is_named(server: str, served: Path) -> None:
    path = as_path(f"{server}/half/{TAR}")
    with pytest.raises(OSError, match=r"half/deep/x-00000\.tar: no complete answer in 4 tries"):
        open_random(path).read(0, 100)
    with pytest.raises(OSError, match="no complete answer in 4 tries"):
        read_bytes(path)


def test_a_folder_that_cannot_be_listed__is_no_empty_one(server: str, served: Path) -> None:
    """Also where another one below the root is at fault."""
    (served / "index.html").write_text(
        f'<a href="deep/">deep</a><a href="{server}/good/bad/">bad</a>'
    )
    assert list(walk(as_path(f"{server}/good"))) == [TAR], "a dead link is only that"
    with pytest.raises(FileNotFoundError, match="good/none: there is no such file or folder"):
        ImageTextShards(f"{server}/good/none")


def test_a_host_that_is_not_there__is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PAUSE", 0.001)
    for url in ("http://127.0.0.1:9/data", "http://127.0.0.1:9/0.tar"):
        with pytest.raises(OSError, match=f"{url}: no complete answer in 4 tries.*connect"):
            ImageTextShards(url)


def test_a_write_is_tried_again(memory: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PAUSE", 0.001)
    real, calls = type(memory.fs).put_file, []

    class Unavailable(Exception):
        status = 503

    def busy(self, *arguments, **options) -> None:
        calls.append(arguments)
        if len(calls) < allowed:
            raise Unavailable("slow down")
        real(self, *arguments, **options)

    monkeypatch.setattr(type(memory.fs), "put_file", busy)
    allowed = 4
    write_atomic(memory / "a", b"whole")
    assert (memory / "a").read_bytes() == b"whole" and len(calls) == 4
    calls.clear()
    allowed = 5
    with pytest.raises(OSError, match=r"memory://store/b: no complete answer.*HTTP status 503"):
        write_atomic(memory / "b", b"never")
    assert not exists(memory / "b") and len(calls) == 4
