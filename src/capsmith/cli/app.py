"""Puts the commands together, and turns every way to fail into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from capsmith import __version__
from capsmith.cli import caption, data, embed, evaluate, export, models, text_tower, train, tune
from capsmith.cli.output import ReaderGoneError, complain, escape_controls, use_utf8
from capsmith.errors import CapsmithError

INTERRUPTED = 130
BROKEN_PIPE = 141

app = typer.Typer(
    name="capsmith",
    help="Captions for photos: offline, on a CPU, without PyTorch.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("caption")(caption.caption)
app.command("models")(models.models)
app.command("check")(models.check)
app.add_typer(data.app, name="data")
app.command("embed")(embed.embed)
app.command("eval")(evaluate.evaluate)
app.command("fetch")(models.fetch)
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("export")(export.export)
app.command("text-tower")(text_tower.text_tower)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"capsmith {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit status.

    0 success, 1 some photo failed, 2 a wrong command line, 3 the model, 130 interrupted,
    141 whoever read our output has gone.
    """
    use_utf8()
    command = typer.main.get_command(app)
    try:
        status = command.main(args=list(arguments), prog_name="capsmith", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        message = " ".join(error.format_message().split())
        complain(f"{escape_controls(message)} (capsmith --help)")
        return error.exit_code
    except CapsmithError as error:
        complain(escape_controls(str(error)))
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (ReaderGoneError, BrokenPipeError):
        _forget_stdout()
        return BROKEN_PIPE
    except OSError as error:
        complain(escape_controls(f"cannot go on: {error}"))
        _forget_stdout()
        return CapsmithError.exit_status
    return status if isinstance(status, int) else 0


def _forget_stdout() -> None:
    """Python flushes stdout at exit and would report the broken pipe once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
