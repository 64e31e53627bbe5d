from __future__ import annotations

from pathlib import Path

import pytest

from cliptex.data.sampler import Around
from cliptex.recipes import AROUND_512, TABLE_5, paper, photos, playroom, playroom_pretrain
from cliptex.training.config import TrainConfig, changed

DATA, LABELS = Path("web"), Path("labels")
TASKS = {"segmentation": "mask-rcnn", "depth": "dpt", "normals": "nll-angmf"}
H16 = "corenet:ViT-H-16"

STARTS = {"vit-b16": None, "vit-h16": H16, "resnet50": None}
PAIRS = {  # CLIP-FT and CLIPTeX of the three image encoders of section 4.2
    tower: (
        paper(tower, DATA, start_from=start),
        paper(tower, DATA, LABELS, tasks=TASKS, start_from=start),
    )
    for tower, start in STARTS.items()
}


@pytest.mark.parametrize("encoder", PAIRS)
@pytest.mark.parametrize(
    ("key", "value"),
    [  # the paper's Table 7, line by line
        ("epochs", 30),
        ("warmup_steps", 1000),
        ("warmup_init_lr", 1e-6),
        ("lr", 3e-5),
        ("min_lr", 1e-6),
        ("batch_size", 32),
    ],
)
def test_table_7(key: str, value: object, encoder: str) -> None:
    assert [getattr(config, key) for config in PAIRS[encoder]] == [value, value]


@pytest.mark.parametrize("encoder", PAIRS)
def test_weights_of_table_7__of_the_terms_that_a_run_has(encoder: str) -> None:
    ft, cliptex = PAIRS[encoder]
    assert ft.loss_weights == {"clip": 1.0}
    assert cliptex.loss_weights == {"depth": 1.0, "clip": 1.0, "segmentation": 0.1, "normals": 1.0}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # section 3.1: "a single shared multi-scale module (Zhao et al., 2017)", whose grids are
        # 1, 2, 3, 6; "independent point-wise convolution as the head for each task"
        ("dense.pools", (1, 2, 3, 6)),
        ("dense.head", "light"),
        # the paper is silent; the authors' library for CLIP (corenet, clip_vit_base.yaml)
        ("weight_decay", 0.2),
        ("betas", (0.9, 0.98)),
        ("eps", 1e-6),
        ("clip_grad", None),
        ("crop_scale", (0.9, 1.0)),
        ("crop_ratio", (3 / 4, 4 / 3)),
        ("flip", 0.0),
        ("dense.width", 512),
        ("dense.dropout", 0.1),
        # the paper is silent; ours
        ("dense.norm", "group"),
        ("ema", None),
        ("head_lr_multiplier", 1.0),
        ("batch_per", "global"),
        ("depth_norm", "median-mad"),
        ("range_augment", None),
        ("model.output_stride", None),
        # not of the paper
        ("confidence", ()),
        ("uncertainty", False),
        ("contrast", "softmax"),
    ],
)
def test_sections_3_and_4_and_what_the_paper_leaves_open(key: str, value: object) -> None:
    for _, config in PAIRS.values():
        found: object = config
        for name in key.split("."):
            found = getattr(found, name)
        assert found == value


def test_resolution_varies_around_512_in_steps_of_32() -> None:
    # Section 4.2: "variable resolution and a batch sampler, whose base [...] is 512 x 512".
    # 160 to 320 around 224 in five (corenet), times 512 / 224, to multiples of 32.
    sizes = AROUND_512.sizes()
    assert [side for side, _ in sizes] == [512, 352, 448, 544, 640, 736]
    for pair in PAIRS.values():
        assert all(config.resolution == sizes for config in pair)
    assert all(h == w for h, w in sizes)


def test_another_range_of_resolutions() -> None:
    # The authors' library for ImageNet at 512: 256 to 512 in 25, which are nine multiples of 32.
    around = Around(low=256, high=512, count=25)
    for config in (
        paper("vit-b16", DATA, around=around),
        paper("vit-h16", DATA, LABELS, tasks=TASKS, start_from=H16, around=around),
        paper("resnet50", DATA, LABELS, tasks=TASKS, around=around),
    ):
        assert config.resolution[0] == (512, 512)
        assert sorted(h for h, _ in config.resolution) == list(range(256, 513, 32))
    with pytest.raises(ValueError, match="around: need 0 < low <= high"):
        paper("vit-b16", DATA, around=Around(low=600, high=500))


def test_the_output_stride_of_a_resnet_belongs_to_the_model() -> None:
    ft, cliptex = (
        paper("resnet50", DATA, output_stride=16),
        paper("resnet50", DATA, LABELS, tasks=TASKS, output_stride=16),
    )
    assert ft.model == cliptex.model and ft.model.output_stride == 16
    assert paper("resnet50", DATA).model.output_stride is None
    differing = {k for k, v in ft.model_dump().items() if v != cliptex.model_dump()[k]}
    assert differing == {"labels", "tasks", "loss_weights"}


def test_a_further_task_weighs_one() -> None:
    config = paper("vit-b16", DATA, LABELS, tasks={**TASKS, "edges": "sobel-edges"})
    table_7 = {"depth": 1.0, "clip": 1.0, "segmentation": 0.1, "normals": 1.0}
    assert config.loss_weights == {**table_7, "edges": 1.0}


@pytest.mark.parametrize("encoder", PAIRS)
def test_clip_ft_differs_only_in_tasks_with_their_labels_and_weights(encoder: str) -> None:
    # Section 4.2: CLIPTeX is fine-tuned "using the same settings as CLIP-FT".
    ft, cliptex = (config.model_dump() for config in PAIRS[encoder])
    assert {key for key in ft if ft[key] != cliptex[key]} == {"labels", "tasks", "loss_weights"}
    assert ft["loss_weights"]["clip"] == cliptex["loss_weights"]["clip"]


def test_clip_ft_of_the_playroom_differs_in_tasks_and_their_weights_alone() -> None:
    ft, cliptex = playroom(DATA).model_dump(), playroom(DATA, LABELS).model_dump()
    differing = {key for key in ft if ft[key] != cliptex[key]}
    assert differing == {"labels", "tasks", "loss_weights"}  # weights of tasks alone:
    assert ft["loss_weights"]["clip"] == cliptex["loss_weights"]["clip"] == 1.0


@pytest.mark.parametrize(
    ("row", "segmentation", "depth", "normals"),
    [  # the paper's Table 5, line by line
        ("R1", False, False, False),
        ("R2", True, False, False),
        ("R3", False, True, False),
        ("R4", False, False, True),
        ("R5", True, True, False),
        ("R6", True, False, True),
        ("R7", False, True, True),
        ("R8", True, True, True),
    ],
)
def test_rows_of_table_5(row, segmentation: bool, depth: bool, normals: bool) -> None:
    wanted = {"segmentation": segmentation, "depth": depth, "normals": normals}
    config = paper("vit-b16", DATA, LABELS, tasks=TASKS, row=row)
    assert config.tasks == {task: TASKS[task] for task, on in wanted.items() if on}
    assert len(TABLE_5) == 8


def test_row_1_is_clip_ft_and_row_8_is_cliptex() -> None:
    # Their scores in Table 5 are those of CLIP-FT and CLIPTeX in Tables 1 to 3.
    assert paper("vit-b16", DATA, LABELS, tasks=TASKS, row="R1") == paper("vit-b16", DATA)
    assert paper("vit-b16", DATA, LABELS, tasks=TASKS, row="R8") == PAIRS["vit-b16"][1]


def test_a_row_says_which_expert_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"R5 .* \['depth'\]"):
        paper("vit-b16", DATA, LABELS, tasks={"segmentation": "mask-rcnn"}, row="R5")


def test_rows_of_table_6_differ_in_the_heads_alone() -> None:
    light, heavy = (
        paper("vit-b16", DATA, LABELS, tasks=TASKS, head_layers=n).model_dump() for n in (1, 3)
    )
    assert {key for key in light if light[key] != heavy[key]} == {"dense"}
    differing = {key for key in light["dense"] if light["dense"][key] != heavy["dense"][key]}
    assert differing == {"head"}


def test_learning_rates_follow_the_batch_only_where_asked() -> None:
    # 2048 / 32 = 64, whose root is 8.
    for rule, factor in (("none", 1), ("sqrt", 8), ("linear", 64)):
        config = paper("vit-b16", DATA, batch_size=2048, lr_rule=rule)
        assert config.batch_size == 2048
        rates = (config.warmup_init_lr, config.lr, config.min_lr)
        assert rates == pytest.approx((1e-6 * factor, 3e-5 * factor, 1e-6 * factor))
    assert paper("vit-b16", DATA, batch_size=2048, lr_rule="sqrt", lr=1e-4).lr == 1e-4


def test_where_the_models_start() -> None:
    spec = paper("vit-b16", DATA).model
    assert (spec.name, spec.weights) == ("open_clip:ViT-B-16", "laion2b_s34b_b88k")
    spec = paper("resnet50", DATA).model
    assert (spec.name, spec.weights) == ("open_clip:RN50", "openai")
    spec = paper("vit-b16", DATA, start_from="corenet:/weights/clip_vit_base_16.pt").model
    assert (spec.name, spec.weights) == ("corenet:/weights/clip_vit_base_16.pt", None)
    assert paper("vit-b16", DATA, start_from="playroom").model.name == "playroom"


def test_playroom_learns_from_its_own_experts() -> None:
    assert playroom(DATA, LABELS).tasks == {
        "segmentation": "playroom-segmentation",
        "depth": "playroom-depth",
        "normals": "playroom-normals",
    }
    assert playroom(DATA, LABELS, tasks={"depth": "perfect-depth"}).tasks == {
        "depth": "perfect-depth"
    }


@pytest.mark.parametrize(
    "config",
    [
        playroom_pretrain(DATA, vocabulary=[5, 7], seed=3),
        photos(DATA, Path("tower.safetensors"), seed=3),
    ],
)
def test_a_new_model_comes_from_the_seed_of_the_run(config: TrainConfig) -> None:
    assert (config.seed, config.model.seed) == (3, 3)


def test_changes_are_validated_and_replace_the_length() -> None:
    assert paper("vit-b16", DATA, steps=10).epochs is None
    assert playroom(DATA, epochs=2).steps is None
    assert playroom(DATA, steps=7).steps == 7
    seen = paper("vit-b16", DATA, samples=12_800)
    assert (seen.samples, seen.epochs, seen.steps) == (12_800, None, None)
    assert changed(seen, {"steps": 3}).samples is None
    with pytest.raises(ValueError, match="exactly one of `steps`, `epochs`, `samples`"):
        playroom(DATA, steps=7, samples=9)
    with pytest.raises(ValueError, match="learning_rate"):
        playroom(DATA, learning_rate=1.0)


def test_what_a_tower_needs() -> None:
    with pytest.raises(ValueError, match=r"`tower`: 'vit-b14' is unknown \(did you mean vit-b16"):
        paper("vit-b14", DATA)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`start_from`: there are no open weights of vit-h16"):
        paper("vit-h16", DATA)
    with pytest.raises(ValueError, match="`labels`: give the folder"):
        paper("vit-b16", DATA, tasks=TASKS)


def test_blocks_of_the_largest_tower_are_recomputed() -> None:
    found = {tower: pair[1].activation_checkpointing for tower, pair in PAIRS.items()}
    assert found == {"vit-b16": False, "vit-h16": True, "resnet50": False}
    assert not paper("vit-h16", DATA, start_from=H16, activation_checkpointing=False).model_dump()[
        "activation_checkpointing"
    ]
