"""`capsmith tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capsmith.cli.data import (
    Columns,
    DataPath,
    Format,
    Language,
    Photos,
    Splits,
    data_sources,
    watched,
)


def tune(
    data: DataPath,
    *,
    model: Annotated[
        str | None, typer.Option(help="The captioner to go on from: a name or a bundle's folder.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")] = Path(
        "runs/tuned"
    ),
    format_name: Format = "",
    photos: Photos = None,
    split: Splits = None,
    column: Columns = None,
    language: Language = "",
) -> None:
    """Teach a captioner the words of your own photos, and say whether it is better for it.

    Some hundred captioned photos are enough. A quarter of them (or the split "test") is held out:
    scores before and after are of these, with a paired bootstrap. RUN/best is the captioner.

    Exit status: 0 done, whatever the answer, 1 the data cannot be used, 2 wrong options, 3 the
    model cannot be trained on, 130 interrupted.
    """
    from capsmith.cli.output import escape_controls, print_line
    from capsmith.cli.train import require_training

    require_training()
    from capsmith.training.tune import tune as tune_captioner

    sources, base = data_sources(
        data, format_name=format_name, photos=photos, split=split, column=column, language=language
    )
    found = tune_captioner(
        sources,
        output,
        model=model,
        base=base,
        log=lambda line: print_line(escape_controls(line)),
        watch=watched,
    )
    print_line(found.verdict)
    print_line(escape_controls(f"captioner: {output / 'best'}"))
