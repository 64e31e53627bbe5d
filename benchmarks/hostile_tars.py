"""Hostile image-text tars; what is in them is told by `tarfile`."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import tarfile
from pathlib import Path, PurePosixPath

from cliptex.shards.check import check
from cliptex.shards.dataset import ImageTextShards
from hostile_cases import Case, damage, short, write
from hostile_tables import picture

IMAGE = ("jpg", "jpeg", "png", "JPG", "jpe", "webp", "gif", "bmp", "tif")
Members = list[tuple[str, bytes]]


def pairs(rng: random.Random, count: int = 4) -> Members:
    """`count` images of different bytes, each with a caption."""
    suffix = rng.choice(IMAGE[:4])
    format = "PNG" if suffix == "png" else "JPEG"
    found: Members = []
    for number in range(count):
        found.append((f"k{number}.{suffix}", picture(format, 37 * number)))
        found.append((f"k{number}.txt", f"picture {number}".encode()))
    return found


def packed(members: Members, format: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read(data: bytes) -> tuple[Members, bool]:
    """The ordinary members of a tar by tarfile, and whether it goes on, with zeros."""
    found, end = [], 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                content = file.read() if file else b""
                if member.isreg() and len(content) < member.size:
                    return found, False
                if member.isreg():
                    found.append((member.name, content))
                end = member.offset_data + -(-len(content) // 512) * 512
    except (tarfile.TarError, ValueError, OverflowError, OSError, EOFError):
        return found, False
    mark = data[end : end + 512]
    return found, bool(mark) and not mark.strip(b"\0")


def renamed(rng: random.Random, members: Members) -> tuple[Members, str]:
    """The same with odd names."""
    way = rng.randrange(9)
    ways = (
        ("a dot in the key", lambda n: f"22.{n}"),
        ("two suffixes", lambda n: n.replace(".", ".input.", 1)),
        ("./ before every second", lambda n: n if n.endswith("txt") else f"./{n}"),
        ("folders", lambda n: f"a/b/{n}"),
        ("absolute", lambda n: f"/{n}"),
        ("..", lambda n: f"../{n}"),
        ("hidden", lambda n: f".{n}"),
        ("long", lambda n: "x" * 150 + n),
        ("spaces and accents", lambda n: f"ü {n}"),
    )
    what, change = ways[way]
    return [(change(name), data) for name, data in members], f"names with {what}"


def built(rng: random.Random) -> tuple[bytes, str]:
    """A tar that is odd, but whole."""
    members = pairs(rng)
    way = rng.randrange(12)
    how = "sound"
    if way < 4:
        members, how = renamed(rng, members)
    elif way == 4:
        extra = rng.choice(("png", "jpeg", "webp", "JPG"))
        members.insert(rng.randrange(3), (f"k0.{extra}", picture("PNG", 200)))
        how = f"k0 has also a .{extra}"
    elif way == 5:
        members.append(rng.choice(members))
        how = f"{members[-1][0]} twice"
    elif way == 6:
        rng.shuffle(members)
        how = "members in any order"
    elif way == 7:
        suffix = rng.choice(("caption", "text", "json", "cls"))
        caption = b'{"caption": "picture"}' if suffix == "json" else b"picture"
        members = [
            (n.replace(".txt", f".{suffix}"), caption if "txt" in n else d) for n, d in members
        ]
        how = f"captions in .{suffix}"
    elif way == 8:
        kept = rng.choice((".txt", "jpg"))
        members = [(n, d) for n, d in members if n.endswith(kept)]
        how = f"only members that end in {kept}"
    elif way == 9:
        members[0] = (members[0][0], b"")
        members[1] = ("k0.txt", rng.choice((b"", b"\xff\xfe\0a", b"caf\xe9", b"\n\n")))
        how = f"an empty image and the caption {members[1][1]!r}"
    elif way == 10:
        members = [("__MACOSX/._k0.jpg", b"x"), (".DS_Store", b"x"), ("README", b"x"), *members]
        how = "files that are none of the data"
    else:
        members = []
        how = "no member"
    format = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    try:
        return packed(members, format), f"{how}, tar format {format}"
    except ValueError:  # a name that USTAR has no place for
        return packed(members), f"{how}, tar format GNU"


def linked(rng: random.Random) -> tuple[bytes, str]:
    out = io.BytesIO()
    kind = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"Z"))
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in pairs(rng):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("k9.jpg")
        info.type, info.linkname = kind, rng.choice(("k0.jpg", "/etc/passwd", "../../x"))
        tar.addfile(info)
    return out.getvalue(), f"a member k9.jpg of type {kind!r}"


def cut(rng: random.Random) -> tuple[bytes, str]:
    """Cut exactly between two members, as half a download may be."""
    members = pairs(rng, 5)
    whole = rng.randrange(1, len(members))
    size = sum(512 + -(-len(data) // 512) * 512 for _, data in members[:whole])
    return packed(members)[:size], f"5 pairs, cut after member {whole} (byte {size})"


def squeezed(rng: random.Random) -> tuple[bytes, str]:
    squeeze = rng.choice((gzip.compress, bz2.compress))
    return squeeze(packed(pairs(rng))), f"compressed by {squeeze.__module__}"


def no_tar(rng: random.Random) -> tuple[bytes, str]:
    data = rng.choice((b"", b"\0" * 512, b"\0" * 10240, b"<html>404</html>", b"x" * 2048))
    return data, f"{len(data)} bytes {data[:16]!r}"


def case(rng: random.Random, number: int, folder: Path) -> Case:
    way = number % 10
    if way < 4:
        data, how = built(rng)
    elif way < 7:
        data, done = damage(rng, packed(pairs(rng)))
        how = f"4 pairs, {done}"
    else:
        data, how = {7: cut, 8: linked, 9: rng.choice((squeezed, no_tar))}[way](rng)
    write(folder / "in" / "00000.tar", data)
    members, whole = read(data)

    checked = rng.random() < 0.5  # as `shards check` does, else as `label run` and `train`

    def run() -> tuple[str, list[tuple[str, bytes, str]]]:
        shards = ImageTextShards(folder / "in", on_damaged="keep" if checked else "leave out")
        report = str(check(shards, decode=False)) if checked else ""
        samples = [shards[i] for i in range(len(shards))]
        return report, [(s.key, s.image, s.text) for s in samples]

    def judge(answer: tuple[str, list[tuple[str, bytes, str]]], said: str) -> str:
        told = said + answer[0]
        sound = "sound" in told if checked else not told.strip()
        return _judge(members, whole, answer[1], told, sound)

    how += ", checked" if checked else ", opened"
    return Case(how, run, judge, ("00000.tar", "in: "), whole and "cut" not in how)


def _judge(
    members: Members,
    whole: bool,
    samples: list[tuple[str, bytes, str]],
    told: str,
    sound: bool,
) -> str:
    if not whole and sound:
        return "tarfile finds it damaged or without an end, nothing is said"
    images = [(n, d) for n, d in members if n.rpartition(".")[2].lower() in map(str.lower, IMAGE)]
    texts = {n: d for n, d in members if n.endswith(".txt")}
    taken = [image for _, image, _ in samples]
    lost = [name for name, data in images if data not in taken]
    if lost and not any(_named(name, told) for name in lost):
        return f"the images {short(lost)} are lost, none is named"
    for key, image, text in samples:
        mine = [name for name, data in images if data == image]
        if not mine and whole:
            return f"the image of {key} is of no member"
        stems = [_stem(name) for name in mine]
        captions = [_caption(text) for name, text in texts.items() if _stem(name) in stems]
        if None not in captions and captions and text not in captions and key not in told:
            return f"{key} has the caption {text!r}, not one of {captions}"
    return ""


def _caption(data: bytes) -> str | None:
    """As it arrives; None where it is no plain text, which is mended by rules of its own."""
    try:
        lines = data.decode().lower().splitlines()
    except UnicodeDecodeError:
        return None
    if not all(line.isprintable() for line in lines):
        return None
    return "\n".join(" ".join(line.split()) for line in lines if line.strip())


def _named(name: str, told: str) -> bool:
    """Whether a member is named, in full or by its key and suffix ("'k0' has jpg and png")."""
    key, _, suffix = PurePosixPath(name).name.partition(".")
    rest = told.partition(f"{key!r} has ")[2].partition("\n")[0]
    return PurePosixPath(name).name in told or suffix.lower() in rest


def _stem(name: str) -> str:
    return name.removeprefix("./").rpartition(".")[0]
