import pytest
import torch

from cliptex.models.clip import ClipConfig, ModelSpec, build_clip
from cliptex.models.encoder import FrozenEncoder, PixelEncoder
from cliptex.probes.baselines import control_encoders, in_place_of
from cliptex.report.names import Measure
from cliptex.results import Result

CONFIG = ClipConfig(
    embed_dim=16,
    vision_cfg={"layers": 1, "width": 64, "patch_size": 8, "image_size": 16},
    text_cfg={"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1},
)


def test_pixel_encoder__by_hand():
    images = torch.zeros(1, 3, 2, 4)
    images[0, 0] = torch.tensor([[0.0, 1, 0.5, 0.5], [0, 1, 0.5, 0.5]])
    found = PixelEncoder(2)(images)
    cells = found.maps[2][0]  # (11, 1, 2); colours are shifted by a half and divided by a quarter
    assert cells[:, 0, 0].tolist() == pytest.approx([0, -2, -2, 2, 0, 0, -0.5, 0, 0.25, 0, 0])
    assert cells[:, 0, 1].tolist() == pytest.approx([0, -2, -2, 0, 0, 0, 0.5, 0, 0.25, 0, 0])
    assert found.pooled[0].tolist() == pytest.approx(cells.mean((1, 2)).tolist())


def test_pixel_encoder__cells_are_part_of_the_fingerprint():
    prints = {FrozenEncoder(PixelEncoder(stride)).fingerprint() for stride in (8, 16, 32)}
    assert len(prints) == 3


def test_control_encoders__same_architecture_other_weights():
    clip = build_clip(ModelSpec(config=CONFIG, seed=3))
    first, same, other = (control_encoders(clip, seed) for seed in (0, 0, 1))
    assert list(first) == ["random-init", "pixels"]
    shapes = [
        {name: tensor.shape for name, tensor in encoder.state_dict().items()}
        for encoder in (clip.image, first["random-init"].encoder)
    ]
    assert shapes[0] == shapes[1]
    prints = [found["random-init"].fingerprint() for found in (first, same, other)]
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] != FrozenEncoder(clip.image).fingerprint()
    assert first["pixels"].stride == clip.image.stride


def test_control_encoders__a_probe_takes_them(world, kinds, config, probe_one):
    clip = build_clip(ModelSpec(config=CONFIG))
    sets = world(kinds["segmentation"], 12, 0), None, world(kinds["segmentation"], 4, 1)
    values = {
        name: probe_one(encoder, *sets, config(), model=name).value("miou")
        for name, encoder in control_encoders(clip).items()
    }
    assert all(0 < value < 100 for value in values.values())


@pytest.fixture
def make_row():
    """A depth row where only what matters is given."""

    def make(model, probe, **protocol):
        return Result(
            model=model,
            task="depth",
            dataset="d",
            probe=probe,
            metric="absrel",
            value=0.5,
            better="lower",
            n=9,
            protocol=protocol,
        )

    return make


def test_in_place_of__stands_in_the_column_of_every_probe(make_row):
    mean = make_row("mean prediction", None, name="eigen", resolution=8, prediction="mean")
    tests = [
        make_row("clip", "linear", name="eigen", recipe="fast", resolution=512),
        make_row("clip", "linear", name="eigen", recipe="fast", resolution=512),
        make_row("clip", "pspnet", name="eigen", recipe="paper", resolution=512),
        make_row("clip", "linear", name="lasinger", recipe="fast", resolution=512),
    ]
    placed = in_place_of([mean], tests)
    assert [Measure.of(row) for row in placed] == [Measure.of(tests[0]), Measure.of(tests[2])]
    assert {row.model for row in placed} == {"mean prediction"}
    assert placed[0].protocol["prediction"] == "mean"


def test_in_place_of__nothing_where_the_metric_is_another(make_row):
    other = make_row("clip", "linear").model_copy(update={"metric": "depth_rmse"})
    assert in_place_of([make_row("mean prediction", None)], [other]) == []
