"""Image-text shards on remote file systems: the same as beside us, by few requests."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from upath import UPath

from cliptex.shards import dataset as dataset_module
from cliptex.shards.check import check
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.importers import import_coco, import_folder, import_img2dataset
from cliptex.shards.write import ShardWriter

Picture = Callable[..., bytes]
MakeTar = Callable[..., Path]


def write(root: Path | UPath, picture: Picture, count: int = 7) -> None:
    with ShardWriter(root / "sub", prefix="x", samples_per_shard=3) as writer:
        for i in range(count):
            writer.add(f"k{i}", picture(i, 64, 48), "jpg", f"caption {i}")


@pytest.fixture
def local(tmp_path: Path, picture: Picture) -> Path:
    write(tmp_path / "local", picture)
    return tmp_path / "local"


@pytest.fixture
def remote(memory: UPath, picture: Picture) -> UPath:
    write(memory, picture)
    return memory


def same(a: ImageTextShards, b: ImageTextShards) -> bool:
    return list(a) == list(b) and (a.shards, a.dataset_id) == (b.shards, b.dataset_id)


def test_written_remotely_read_as_locally(local: Path, remote: UPath) -> None:
    for path in sorted(local.rglob("*.tar")):
        twin = remote / path.relative_to(local).as_posix()
        assert twin.read_bytes() == path.read_bytes()
    shards = ImageTextShards(str(remote))
    assert len(shards) == 7 and shards.shards[0] == "sub/x-00000.tar"
    assert same(shards, ImageTextShards(local)) and same(shards, ImageTextShards(remote))
    assert repr(shards) == "ImageTextShards('memory://store': 3 shards, 7 pairs)"
    assert shards.read("sub/x-00002.tar", "k6").text == "caption 6"
    assert check(shards).ok


def test_file_url_is_the_plain_path(local: Path) -> None:
    shards = ImageTextShards(f"file://{local}")
    assert shards.root == local and same(shards, ImageTextShards(local))


def test_one_remote_tar(remote: UPath) -> None:
    shards = ImageTextShards("memory://store/sub/x-00001.tar")
    assert shards.shards == ("x-00001.tar",) and len(shards) == 3
    assert str(shards.root) == "memory://store/sub"


def test_pickled_and_read_again(remote: UPath) -> None:
    shards = ImageTextShards(remote)
    first = shards[0]
    assert pickle.loads(pickle.dumps(shards))[0] == first


def test_the_index_is_kept_until_a_shard_changes(
    remote: UPath, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = dataset_module.index_shard
    monkeypatch.setattr(dataset_module, "index_shard", lambda p: (seen.append(p.name), real(p))[1])
    before = ImageTextShards(remote)
    assert len(seen) == 3
    assert len(ImageTextShards(remote)) == 7 and len(seen) == 3
    with ShardWriter(remote / "sub", prefix="x") as writer:  # overwrites the first
        writer.add("new", picture(9), "jpg", "new")
    after = ImageTextShards(remote)
    assert seen[3:] == ["x-00000.tar"] and len(after) == 5
    with pytest.raises(ValueError, match=r"memory://store/sub/x-00000\.tar: changed since"):
        before.read("sub/x-00000.tar", "k0")


def test_requests_are_few(memory: UPath, encode, monkeypatch: pytest.MonkeyPatch) -> None:
    with ShardWriter(memory, prefix="x") as writer:
        for i in range(500):
            writer.add(f"{i:05d}", b"\xff\xd8\xff" + bytes(20_000), "jpg", "text")
    calls: list[str] = []
    for name in ("cat_file", "info", "find", "ls"):
        real = getattr(type(memory.fs), name)

        def watched(self, *args, _name=name, _real=real, **kwargs):
            calls.append(_name)
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(type(memory.fs), name, watched)
    ImageTextShards(memory)
    calls.clear()
    shards = ImageTextShards(memory)
    opening = calls.copy()
    assert opening.count("find") == 1 and "cat_file" not in opening
    for sample in shards:
        assert len(sample.image) == 20_003
    assert calls.count("cat_file") < 12, "10 MB in stretches of up to 4 MiB, not 1000 reads"


def test_nothing_there(memory: UPath) -> None:
    with pytest.raises(FileNotFoundError, match=r"memory://store/no: no \*\.tar in this folder"):
        ImageTextShards(memory / "no")
    with pytest.raises(FileNotFoundError):
        ImageTextShards(memory / "no.tar")


def test_a_damaged_remote_shard(remote: UPath) -> None:
    path = remote / "sub/x-00001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(
        ValueError, match=r"1 of 3 shards are damaged:\s+memory://store/sub/x-00001"
    ):
        ImageTextShards(remote)
    assert ImageTextShards(remote, on_damaged="leave out").damaged.keys() == {"sub/x-00001.tar"}


def test_a_fault_of_the_network_is_not_the_shards(
    remote: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: object) -> None:
        raise ConnectionResetError("connection reset")

    monkeypatch.setattr(dataset_module, "index_shard", fail)
    with pytest.raises(ConnectionResetError):
        ImageTextShards(remote, on_damaged="leave out")


def test_imports_between_file_systems(
    memory: UPath, tmp_path: Path, picture: Picture, make_tar: MakeTar
) -> None:
    for root in (tmp_path / "source", memory / "source"):
        (root / "images").mkdir(parents=True, exist_ok=True)
        for i in range(3):
            (root / f"images/{i}.jpg").write_bytes(picture(i))
        (root / "captions.csv").write_text("image,caption\n0.jpg,a\n1.jpg,b\n2.jpg,c\n../x.jpg,d\n")
    out = memory / "out"
    report = import_folder(tmp_path / "source/captions.csv", tmp_path / "source/images", out)
    assert (report.shards, report.samples) == (1, 3) and "outside" in report.problems[0]
    remote = import_folder(memory / "source/captions.csv", memory / "source/images", out)
    assert remote.samples == 3 and "outside" in remote.problems[0]
    back = import_folder(memory / "source/captions.csv", memory / "source/images", tmp_path / "out")
    assert (back.samples, back.captions) == (remote.samples, remote.captions) == (3, 3)
    assert same(ImageTextShards(tmp_path / "out"), ImageTextShards(out))
    with pytest.raises(ValueError, match="not complete JSON"):
        import_coco(memory / "source/captions.csv", memory / "source/images", out)


def test_img2dataset_tars_are_copied_up(memory: UPath, tmp_path: Path, make_tar: MakeTar) -> None:
    make_tar(tmp_path / "source/00000.tar", [("0.jpg", b"x"), ("0.txt", b"y")])
    report = import_img2dataset(tmp_path / "source", memory)
    assert report.ok and report == import_img2dataset(tmp_path / "source", memory)
    assert (memory / "00000.tar").read_bytes() == (tmp_path / "source/00000.tar").read_bytes()
    (memory / "00000.tar").write_bytes(b"something else")
    with pytest.raises(ValueError, match="another file exists"):
        import_img2dataset(tmp_path / "source", memory)


class _Ranges(SimpleHTTPRequestHandler):
    """Files and listings of a folder, with range requests (RFC 9110, section 14)."""

    ignore_ranges = False

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or self.ignore_ranges or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(local: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(local))) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_read_from_a_web_server(server: str, local: Path) -> None:
    shards = ImageTextShards(f"{server}/sub/x-00001.tar")
    assert same(shards, ImageTextShards(local / "sub/x-00001.tar"))
    assert len(ImageTextShards(server)) == 7, "its listing leads to all shards"
    assert same(pickle.loads(pickle.dumps(ImageTextShards(server))), ImageTextShards(local))
    with pytest.raises(FileNotFoundError):
        ImageTextShards(f"{server}/sub/absent.tar")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_reads_from_a_web_server(server: str) -> None:
    shards = ImageTextShards(server)
    expected = [shards[0], shards[6]]
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send([shards[0], shards[6]]))
    child.start()
    assert ours.poll(20) and ours.recv() == expected
    child.join()
    assert shards[0] == expected[0]


def test_a_web_server_without_ranges(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = ImageTextShards(server)
    monkeypatch.setattr(_Ranges, "ignore_ranges", True)
    monkeypatch.setattr("cliptex.files.reading._LEAST_AHEAD", 100)
    with pytest.raises(ValueError, match="does not answer range requests"):
        _ = shards[1]
