"""`cliptex experts`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from cliptex.cli.expert_options import NO_OPTIONS, ExpertArgs, load_one
from cliptex.cli.help import verb

if TYPE_CHECKING:
    import numpy as np

ROOMS, ROOM_SIZE = 8, (192, 256)


@verb(
    "cliptex experts list",
    "cliptex experts list | grep depth",
)
def list_() -> None:
    """Name every expert that can be loaded; a card's model may have to be fetched first."""
    from cliptex.experts.load import known_experts

    print("\n".join(known_experts()))


@verb(
    "cliptex experts check playroom:normals --images runs/demo/home/classes/test",
    "cliptex experts check hub-normals:my_folder --frame right-up-back-toward --images photos",
    first="images count weights device precision",
)
def check(
    name: Positional[str],
    /,
    images: Path,
    loading: ExpertArgs = NO_OPTIONS,
    count: int = 8,
) -> None:
    """Check that an expert keeps its promises; fails where it does not.

    Shape, range, finiteness, determinism, independence of the batch, axes of normals on rendered
    rooms, and images per second.

    Args:
        name: the expert, as `cliptex label run` takes it.
        images: folder of pictures.
        loading: where the expert runs, and what is said about it.
        count: number of pictures, the first by name.
    """
    from cliptex.datasets.protocol import other_files, read_image
    from cliptex.experts.check import check_expert
    from cliptex.shards.images import IMAGE_SUFFIXES

    there = [path for path in sorted(images.rglob("*")) if path.is_file()]
    files = [path for path in there if path.suffix.lower() in IMAGE_SUFFIXES][:count]
    if len(files) < 2:
        others = other_files([path for path in there if path not in files])
        raise ValueError(
            f"{images}: {len(files)} pictures, a check needs at least two"
            f"{f' ({others})' if others else ''}"
        )
    expert = load_one(name, loading)
    rooms = _rooms() if expert.spec.kind.in_camera_axes else []
    lines = check_expert(expert, [read_image(path) for path in files], rooms=rooms)
    print("\n".join(map(str, lines)))
    failed = [line.name for line in lines if not line.ok]
    if failed:
        raise ValueError(f"{name} fails: {', '.join(failed)}")


def _rooms() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures of rendered rooms and their true normals."""
    from cliptex.playroom.render import render
    from cliptex.playroom.scene import sample_scene

    scenes = (sample_scene("home", "axes", index) for index in range(ROOMS))
    rendered = [render(scene, *ROOM_SIZE) for scene in scenes]
    return [(room.image, room.normals) for room in rendered]
