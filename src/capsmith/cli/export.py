"""`capsmith export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capsmith.errors import ConfigError

_PRECISIONS = {32: "float32", 8: "int8", 4: "int4"}


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A new folder.")],
    *,
    bits: Annotated[int, typer.Option(help="Bits a weight of the decoder: 32, 8 or 4.")] = 32,
) -> None:
    """Write the best captioner of a run as a bundle, smaller by 8 or 4 bits a weight.

    Logits and captions are compared with those of the trained modules; what differs is printed
    and written into the bundle, and too large a difference is refused.

    Exit status: 0 written, 2 wrong options, 3 the run cannot be exported.
    """
    from capsmith.cli.output import escape_controls, print_line
    from capsmith.cli.train import require_training

    if bits not in _PRECISIONS:
        raise ConfigError(f"--bits {bits}: use 32, 8 or 4")
    require_training()
    from typing import cast

    from capsmith.export.captioner import Bits
    from capsmith.training.best import export_run

    made = export_run(run, bundle, precision=cast(Bits, _PRECISIONS[bits]))
    for name, fact in made.provenance.items():
        if name.startswith("export:"):
            print_line(escape_controls(f"{name.removeprefix('export: ')}: {fact}"))
    print_line(escape_controls(f"{bundle}: {made.size_bytes / 1e6:.1f} MB"))
