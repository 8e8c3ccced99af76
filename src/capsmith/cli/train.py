"""`capsmith train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capsmith.errors import ConfigError

if TYPE_CHECKING:
    from capsmith.training.config import Recipe


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, YAML.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The run's folder (default: runs/ and its name)."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field: training.batch=32."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Go on from a bundle, a run's folder or a name."
        ),
    ] = None,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Show sizes, memory and steps; train nothing.")
    ] = False,
) -> None:
    """Train a captioner as a recipe says.

    RUN/best is the best bundle so far, usable at any time: capsmith caption --model RUN/best. Run
    again, it goes on where it stopped. Several processes or GPUs: accelerate launch -m capsmith
    train RECIPE.

    Exit status: 0 done, 1 data or training failed, 2 a wrong recipe or option, 3 an encoder,
    tokenizer or language model cannot be had, 130 interrupted.
    """
    require_training()
    from capsmith.training.config import read_recipe

    if start is not None:
        place = Path(start).resolve() if Path(start).exists() else start
        changes = [*(changes or ()), f"start={json.dumps(str(place))}"]
    found = read_recipe(recipe, changes or ())
    base = recipe.resolve().parent
    if is_dry:
        from capsmith.cli.output import print_line
        from capsmith.training.dry_run import dry_run

        for line in dry_run(found, base=base):
            print_line(line)
        return
    run(found, output or Path("runs") / found.name, base)


def run(recipe: Recipe, output: Path, base: Path) -> None:
    """Train and say how it went."""
    from capsmith.cli.data import watched
    from capsmith.cli.output import escape_controls, print_line
    from capsmith.training.run import train as train_recipe

    outcome = train_recipe(
        recipe, output, base=base, log=lambda line: print_line(escape_controls(line)), watch=watched
    )
    print_line(
        f"{outcome.bundle}: CIDEr {outcome.best:.3f} at step {outcome.best_step};"
        f" curves: {output / 'curves.png'}"
    )


def require_training() -> None:
    """Raise `ConfigError` where what training needs is not installed."""
    from importlib.util import find_spec

    for name in ("torch", "accelerate", "transformers", "yaml"):
        if find_spec(name) is None:
            raise ConfigError(f"training needs {name}: pip install 'capsmith[train]'")
