"""`capsmith text-tower`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def text_tower(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name from `models`, or a bundle's folder.")
    ],
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A tower's recipe, YAML.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="A new folder.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field: training.steps=500."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="A folder where the photos' embeddings are kept and found again."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all).")] = None,
) -> None:
    """Give a captioner a text tower: texts as vectors in the space of its pictures' embeddings.

    The captioner itself stays as it is. The bundle with the tower is a new one; a tower that the
    captioner has already is replaced in it.

    Exit status: 0 done, 1 the data cannot be used or training failed, 2 a wrong recipe or option,
    3 the model cannot be loaded or BUNDLE exists, 130 interrupted.
    """
    from capsmith.cli.data import watched
    from capsmith.cli.output import escape_controls, print_line
    from capsmith.cli.train import require_training

    require_training()
    import torch

    import capsmith
    from capsmith.training.text_tower import give_text_tower
    from capsmith.training.tower_recipe import read_tower_recipe

    found = read_tower_recipe(recipe, changes or ())
    if threads is not None:
        torch.set_num_threads(threads)
    outcome = give_text_tower(
        capsmith.load(model, threads=threads),
        found,
        output,
        base=recipe.resolve().parent,
        store=store,
        log=lambda line: print_line(escape_controls(line)),
        watch=watched,
    )
    for name, fact in outcome.bundle.provenance.items():
        if name.startswith("text tower:"):
            print_line(escape_controls(f"{name.removeprefix('text tower: ')}: {fact}"))
    files = outcome.bundle.files
    size = files["text.onnx"].size_bytes + files["text_tokenizer.json"].size_bytes
    print_line(escape_controls(f"{output}: the tower takes {size / 1e6:.2f} MB"))
