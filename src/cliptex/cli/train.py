"""`cliptex train`: a recipe, its own options, then any key of the configuration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, fields, make_dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from cliptex.cli.help import HELP_WORDS, Verb, field_texts, verb
from cliptex.console import not_among, warn

if TYPE_CHECKING:
    from cliptex.training.config import TrainConfig

DRY_RUN = "--dry-run"
POOL_POS = "pool_pos"
TASKS = "--tasks"
START, OLD_START = "--start-from", "--start"
OLD_RECIPE = re.compile(r"(clip_ft|cliptex)_(vit_b16|vit_h16|resnet50)")


@verb(
    "cliptex train playroom --data runs/demo/web/shards --labels runs/demo/labels"
    " --out runs/cliptex",
    "cliptex train paper --tower vit-b16 --data shards --labels labels"
    " --tasks depth dpt-large normals nll-angmf --out runs/r7",
    first="out tower data labels tasks batch_size epochs lr device dry_run",
)
def train(
    recipe: Positional[str],
    /,
    out: Path,
    device: str = "auto",
    dry_run: FlagCreatePairsOff[bool] = False,
) -> None:
    """Train from a recipe or a YAML file, going on where it stopped (RECIPE --help: its options).

    Args:
        recipe: paper, playroom, playroom_pretrain or photos, see cliptex.recipes; or a YAML file,
            such as a run's config.yaml.
        out: folder of the run.
        device: auto (a GPU where there is one), cpu, cuda, cuda:1, mps.
        dry_run: train nothing; print configuration, parameters, arithmetic and memory, and write
            the first batch as the trainer sees it to OUT/first-batch.html.
    """
    run([recipe, "--out", str(out), "--device", device, *([DRY_RUN] if dry_run else [])])


def run(arguments: Sequence[str]) -> None:
    """Train with `arguments` = RECIPE --out OUT [options of the recipe] [keys of TrainConfig].

    With --dry-run among them, say what would be done instead.
    """
    recipe, *rest = arguments
    if recipe.startswith("-"):
        raise ValueError(
            f"{recipe} stands where the recipe should: name the recipe or YAML file first, then "
            f"its options (cliptex train RECIPE {recipe} ...)"
        )
    config, chosen = configuration(recipe, rest)
    if chosen.dry_run:
        from cliptex.training.dryrun import dry_run

        text, page = dry_run(config, chosen.out, chosen.device)
        print(text, page, sep="\n")
        return
    from cliptex.training.loop import train as train_model

    print(train_model(config, chosen.out, chosen.device))


def configuration(recipe: str, arguments: Sequence[str]) -> tuple[TrainConfig, Any]:
    """The recipe's configuration with the given changes, and the other options.

    These are `out`, `device` and `dry_run`, see `train`, and the recipe's own.
    """
    prog = f"cliptex train {recipe}"
    build, own = _source(recipe)
    _check_pairs(arguments)
    options = _options(own)
    chosen, rest = tyro.cli(options, prog=prog, args=arguments, return_unknown_args=True)
    config = build(**{name: getattr(chosen, name) for name in own})
    keys = tyro.cli(_keys(config, own), prog=prog, args=rest)
    return changed(config, keys), chosen


def options_of(recipe: str) -> list[type[Any]]:
    """What may follow `cliptex train RECIPE`: its own options, and the keys of TrainConfig."""
    build, own = _source(recipe)
    return [_options(own), _keys(build(**_placeholders(own)), own)]


def of_recipe(recipe: str) -> Verb[...]:
    """`train`, whose help says what the recipe is for."""
    build, own = _source(recipe)
    return replace(train, function=build) if own else train


def _source(recipe: str) -> tuple[Callable[..., TrainConfig], dict[str, tuple[Any, Any]]]:
    """What makes the configuration of a recipe or YAML file, and its own options."""
    from cliptex.training.config import load_config

    if Path(recipe).suffix in (".yaml", ".yml"):
        return lambda: load_config(Path(recipe)), {}
    build = _recipe(recipe)
    return build, _parameters(build)


def changed(config: TrainConfig, keys: Any) -> TrainConfig:
    """`config` with the values of `keys` (see `_keys`), validated again."""
    from cliptex.training.config import changed as change_keys

    old = _values(config)
    new = {f.name: getattr(keys, f.name) for f in fields(keys)}
    changes = {name: value for name, value in new.items() if value != old[name]}
    if POOL_POS in changes:
        update = {POOL_POS: changes.pop(POOL_POS)}
        changes["model"] = config.model.model_copy(update=update)
    return change_keys(config, changes)


def _recipe(name: str) -> Callable[..., TrainConfig]:
    """The recipe called `name`; ValueError with what was perhaps meant where there is none."""
    from cliptex.recipes import RECIPES
    from cliptex.training.config import CONFIG

    if name in RECIPES:
        return RECIPES[name]
    if (Path(name) / CONFIG).is_file():
        raise ValueError(f"recipe {name}: a run's folder; name its file: {Path(name) / CONFIG}")
    raise ValueError(f"recipe {not_among(name, RECIPES)}, or a YAML file")


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """RECIPE and its options, with former names replaced and a line said of each.

    torchrun takes --start, which is --start-from now, for its own --start-method, whichever side
    of `-m` it stands on.
    """
    recipe, *rest = arguments
    former = OLD_RECIPE.fullmatch(recipe)
    if former is not None:
        tower = ["--tower", former[2].replace("_", "-")]
        warn(f"{recipe} is called `paper {' '.join(tower)}` now")
        if former[1] == "cliptex" and not any(w == TASKS or w in HELP_WORDS for w in rest):
            raise ValueError(
                f"{recipe} needs {TASKS}: pairs of a task and the folder of its labels"
            )
        recipe, rest = "paper", [*tower, *rest]
    if recipe == "paper":
        for number, word in enumerate(rest):
            if word == OLD_START or word.startswith(f"{OLD_START}="):
                warn(f"{OLD_START} is called {START} now, since torchrun has an option {OLD_START}")
                rest[number] = word.replace(OLD_START, START, 1)
    return [recipe, *rest]


def _check_pairs(arguments: Sequence[str]) -> None:
    """ValueError where --tasks is not followed by pairs of a task and a folder of labels."""
    if TASKS not in arguments:
        return
    after = arguments[arguments.index(TASKS) + 1 :]
    words = list(takewhile(lambda word: not word.startswith("--"), after))
    if not words or len(words) % 2:
        from cliptex.tasks import TASKS as known

        raise ValueError(
            f"{' '.join([TASKS, *words])}: name pairs of a task and the folder of its labels, such "
            f"as `{TASKS} depth dpt normals nll-angmf`; tasks are {', '.join(known)}"
        )


def _parameters(build: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Name -> (type, default) of a recipe's own options, without the free `**changes`.

    Their help is what the recipe says of them, else TrainConfig.
    """
    from cliptex.training.config import TrainConfig

    hints, texts = get_type_hints(build), field_texts(TrainConfig) | field_texts(build)
    return {
        name: (Annotated[hints[name], arg(help=texts[name])], parameter.default)
        for name, parameter in inspect.signature(build).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _options(parameters: Mapping[str, tuple[Any, Any]]) -> type[Any]:
    """A dataclass with `out`, `device`, `dry_run` and the recipe's own parameters, for tyro."""
    texts = field_texts(train.function)
    hints = get_type_hints(train.function, include_extras=True)
    empty = inspect.Parameter.empty
    ours = {
        name: (Annotated[hints[name], arg(help=texts[name])], parameter.default)
        for name, parameter in inspect.signature(train.function).parameters.items()
        if name != "recipe"
    }
    every = {**ours, **parameters}
    required = [(name, kind) for name, (kind, default) in every.items() if default is empty]
    optional = [
        (name, kind, field(default=default))
        for name, (kind, default) in every.items()
        if default is not empty
    ]
    return make_dataclass("Options", [*required, *optional])


def _placeholders(parameters: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Values for a recipe's required options, so that its help can show what it sets."""

    def stand_in(kind: Any) -> Any:
        return Path("PATH") if kind is Path else get_args(kind)[0]  # of a Literal

    return {
        name: stand_in(get_args(kind)[0])
        for name, (kind, default) in parameters.items()
        if default is inspect._empty
    }


def _keys(config: TrainConfig, own: Collection[str]) -> type[Any]:
    """A dataclass of every key with the values of `config`, but for the recipe's `own` options.

    Of the model, which has no flat form, there is `pool_pos` alone.
    """
    from cliptex.models.config import PositionRule

    hints, texts, values = get_type_hints(type(config)), field_texts(type(config)), _values(config)
    keys: list[tuple[str, Any, Any]] = [
        (
            name,
            Annotated[hints[name], arg(help=texts[name])],
            field(default_factory=partial(values.__getitem__, name)),
        )
        for name in type(config).model_fields
        if name not in ("model", "data", *own)
    ]
    text = "how attention pooling stretches its positions; by default as the model says"
    kind = Annotated[PositionRule | None, arg(help=text)]
    pool_pos = (POOL_POS, kind, field(default=values[POOL_POS]))
    return make_dataclass("Keys", [*keys, pool_pos])


def _values(config: TrainConfig) -> dict[str, Any]:
    """What the command line can change of `config`, also the weights of tasks that it may add."""
    from cliptex.training.config import LOSS_WEIGHTS

    weights = {**LOSS_WEIGHTS, **config.loss_weights}
    return {**dict(config), "loss_weights": weights, POOL_POS: config.model.pool_pos}
