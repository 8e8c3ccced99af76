"""`capsmith embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capsmith.cli.data import (
    Columns,
    DataPath,
    Format,
    Language,
    Photos,
    Splits,
    data_sources,
    training_extra,
    watched,
)
from capsmith.errors import ConfigError

if TYPE_CHECKING:
    from capsmith.data.embed import FeatureEncoder

SOME_PHOTO_FAILED = 1


def embed(
    data: DataPath,
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of the store.")],
    *,
    model: Annotated[
        str | None, typer.Option(help="Whose encoder: a name from `models`, or a bundle's folder.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="FAMILY:NAME", help="Another encoder; needs capsmith[train]."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="A published tag or a file, where --encoder needs one.")
    ] = "",
    output: Annotated[
        str, typer.Option(help="What --encoder gives: embedding, pooled or patches.")
    ] = "default",
    half: Annotated[
        bool, typer.Option("--half", help="Keep 16 bits a value instead of 32.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, directml or coreml.")] = "auto",
    format_name: Format = "",
    photos: Photos = None,
    split: Splits = None,
    column: Columns = None,
    language: Language = "",
) -> None:
    """Encode every photo of a data set once, into a store that is read by the photos' ids.

    --encoder takes transformers:, open-clip:, torchvision: or efficientnet-lite: and a name.

    Stopped in any way and run again, it goes on where it stopped. Photos that cannot be read are
    listed at the end and in the store.

    Exit status: 0 every photo is in the store, 1 some photo could not be read, or the data or the
    store cannot be used, 2 wrong options, 3 the model cannot be loaded, 130 interrupted.
    """
    import capsmith
    from capsmith.cli.output import complain, escape_controls, print_line
    from capsmith.data.embed import BundleEncoder
    from capsmith.data.embed import embed as encode
    from capsmith.data.sources import read_data
    from capsmith.data.store import Precision, safetensors

    if model is not None and encoder is not None:
        raise ConfigError("--model and --encoder both name an encoder; leave one out")
    if encoder is None and (weights or output != "default"):
        raise ConfigError("--weights and --output belong to --encoder; name one")
    safetensors()
    sources, base = data_sources(
        data, format_name=format_name, photos=photos, split=split, column=column, language=language
    )
    manifest = read_data(sources, base=base)
    chosen: FeatureEncoder
    if encoder is None:
        chosen = BundleEncoder(capsmith.load(model, threads=threads, device=device))
    else:
        chosen = _named_encoder(encoder, weights, output, threads=threads, device=device)
    precision: Precision = "float16" if half else "float32"
    made = encode(manifest.photos, store, chosen, dtype=precision, watch=watched)
    for failure in made.unreadable:
        complain(escape_controls(failure.reason))
    facts = made.encoder
    print_line(
        escape_controls(
            f"{store}: {made.count} photos, {facts.rows} x {facts.width} {made.dtype} each,"
            f" by {facts.name}"
        )
    )
    if made.unreadable:
        raise typer.Exit(SOME_PHOTO_FAILED)


def _named_encoder(
    name: str, weights: str, output: str, *, threads: int | None, device: str
) -> FeatureEncoder:
    with training_extra("embed --encoder"):
        import torch

        from capsmith.models.encoder_names import open_encoder, parse_spec
        from capsmith.models.feature_encoder import TorchFeatureEncoder
        from capsmith.models.freed_memory import keep_freed_memory

    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    spec = parse_spec(name, weights=weights, output=output)
    return TorchFeatureEncoder(open_encoder(spec), device=device)
