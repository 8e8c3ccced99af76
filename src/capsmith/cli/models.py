"""`capsmith models`, `capsmith check` and `capsmith fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from capsmith.bundle import Bundle


def models() -> None:
    """List the captioners that `--model` knows by name, with their licences."""
    from capsmith import registry
    from capsmith.cli.output import print_line

    for name in registry.names():
        bundle = registry.open_bundle(name)
        is_default = " (default)" if name == registry.DEFAULT else ""
        print_line(f"{name} {bundle.version}{is_default}")
        print_line(f"  languages: {', '.join(bundle.languages)}")
        print_line(f"  encoder:   {bundle.encoder.name}")
        print_line(f"  size:      {_megabytes(bundle)}")
        print_line(f"  licence:   {bundle.licence}")


def check(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a name from `models`.")
    ],
) -> None:
    """Verify a bundle: fields, sizes and hashes, and that its graphs load."""
    import capsmith
    from capsmith import registry
    from capsmith.cli.output import escape_name, print_line

    checked = registry.open_bundle(str(bundle), verify="always")
    capsmith.load(str(bundle), threads=1, device="cpu")
    print_line(
        f"{escape_name(str(bundle))}: {checked.name} {checked.version} is intact:"
        f" {len(checked.files)} files, {_megabytes(checked)}"
    )


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="OWNER/NAME[@REVISION]", help="A bundle's repository on Hugging Face."
        ),
    ],
) -> None:
    """Download a bundle once, whole and verified; then `--model hub:OWNER/NAME` finds it."""
    from capsmith import hub, registry
    from capsmith.cli.output import print_line
    from capsmith.cli.progress import Bytes

    name = name.removeprefix(registry.HUB)
    with Bytes() as shown:
        folder = hub.fetch_bundle(name, progress=shown.update)
    bundle = registry.open_bundle(f"{registry.HUB}{name}", verify="always")
    print_line(f"{registry.HUB}{name} is {bundle.name} {bundle.version}, {_megabytes(bundle)}")
    print_line(f"  licence: {bundle.licence}")
    print_line(f"  folder:  {folder}")


def _megabytes(bundle: Bundle) -> str:
    return f"{bundle.size_bytes / 1e6:.1f} MB"
