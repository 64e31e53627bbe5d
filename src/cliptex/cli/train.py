"""`cliptex train`: a recipe, its own options, then any key of the configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields, make_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro
from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from cliptex.training.config import TrainConfig

HELP = ("-h", "--help")
DRY_RUN = "--dry-run"


def train(recipe: Positional[str], /, out: Path, dry_run: bool = False) -> None:
    """Train from a recipe or a YAML file, going on where it stopped (RECIPE --help: all options).

    Args:
        recipe: name of a function in cliptex.recipes, or a YAML file (such as a run's config.yaml).
        out: folder of the run.
        dry_run: train nothing; print configuration, parameters, arithmetic and memory, and write
            the first batch as the trainer sees it to OUT/first-batch.html.
    """
    run([recipe, "--out", str(out), *([DRY_RUN] if dry_run else [])])


def run(arguments: Sequence[str]) -> None:
    """Train with `arguments` = RECIPE --out OUT [options of the recipe] [keys of TrainConfig].

    With --dry-run among them, say what would be done instead.
    """
    recipe, *rest = [argument for argument in arguments if argument != DRY_RUN]
    if recipe in HELP:
        tyro.cli(train, prog="cliptex train", args=[recipe])
    config, out = configuration(recipe, rest)
    if DRY_RUN in arguments:
        from cliptex.training.dryrun import dry_run

        text, page = dry_run(config, out)
        print(text, page, sep="\n")
        return
    from cliptex.training.loop import train as train_model

    print(train_model(config, out))


def configuration(recipe: str, arguments: Sequence[str]) -> tuple[TrainConfig, Path]:
    """The recipe's configuration with the given changes, and the folder of the run."""
    from cliptex.training.config import TrainConfig, load_config

    prog = f"cliptex train {recipe}"
    if Path(recipe).suffix in (".yaml", ".yml"):
        build, options = (lambda: load_config(Path(recipe))), _options({})
    else:
        build = _recipes().get(recipe)
        if build is None:
            raise ValueError(f"no recipe {recipe!r}: use a YAML file or one of {list(_recipes())}")
        options = _options(_parameters(build))
    if any(argument in HELP for argument in arguments):
        _show_help(prog, options, _keys(TrainConfig, TrainConfig.model_construct()))
    chosen, rest = tyro.cli(options, prog=prog, args=arguments, return_unknown_args=True)
    values = {f.name: getattr(chosen, f.name) for f in fields(chosen) if f.name != "out"}
    config = build(**values)
    return changed(config, tyro.cli(_keys(TrainConfig, config), prog=prog, args=rest)), chosen.out


def changed(config: TrainConfig, keys: Any) -> TrainConfig:
    """`config` with the values of `keys` (see `_keys`), validated again."""
    from cliptex.training.config import changed as change_keys

    old = dict(config)
    new = {f.name: getattr(keys, f.name) for f in fields(keys)}
    changes = {name: value for name, value in new.items() if value != old[name]}
    return change_keys(config, changes)


def _recipes() -> dict[str, Callable[..., TrainConfig]]:
    from cliptex import recipes

    return {
        name: value
        for name, value in vars(recipes).items()
        if inspect.isfunction(value)
        and value.__module__ == recipes.__name__
        and not name.startswith("_")
    }


def _parameters(build: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Name -> (type, default) of a recipe's own options, without the free `**changes`."""
    hints = get_type_hints(build)
    return {
        name: (hints[name], parameter.default)
        for name, parameter in inspect.signature(build).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _options(parameters: Mapping[str, tuple[Any, Any]]) -> type[Any]:
    """A dataclass with `out` and the recipe's own parameters, for tyro."""
    out = ("out", Annotated[Path, arg(help="folder of the run")])
    required = [(n, t) for n, (t, default) in parameters.items() if default is inspect._empty]
    optional = [
        (n, t, field(default=default))
        for n, (t, default) in parameters.items()
        if default is not inspect._empty
    ]
    return make_dataclass("Options", [out, *required, *optional])


def _keys(kind: type[TrainConfig], config: TrainConfig) -> type[Any]:
    """A dataclass of every key but the model (it has no flat form), with the values of `config`."""
    hints = get_type_hints(kind)
    return make_dataclass(
        "Keys",
        [
            (name, hints[name], field(default_factory=partial(getattr, config, name)))
            for name in kind.model_fields
            if name not in ("model", "data")
        ],
    )


def _show_help(prog: str, options: type[Any], keys: type[Any]) -> None:
    for shown, title in ((options, "Options of the recipe:"), (keys, "Keys that can be changed:")):
        try:
            tyro.cli(shown, prog=prog, description=title, args=["--help"])
        except SystemExit:
            print()
    raise SystemExit(0)
