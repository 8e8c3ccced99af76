"""`capsmith eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capsmith.cli.data import Columns, Format, Photos, data_sources
from capsmith.cli.strategy import DecodingOptions
from capsmith.errors import ConfigError


def evaluate(
    predictions: Annotated[
        Path | None, typer.Argument(metavar="PREDICTIONS", help="Captions: JSON, JSONL, CSV, TSV.")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Argument(metavar="REFERENCES", help="Captions by people: as for `data check`."),
    ] = None,
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="REFERENCES", help="Caption these photos with --model, and score."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A name from `models`, or a bundle's folder.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(metavar="NAME[=LIST]", help="Only this split; LIST names its photos."),
    ] = "",
    metrics: Annotated[
        str,
        typer.Option(
            help="default, all, or some of: cider, bleu, rouge-l, meteor, spice, clipscore,"
            " cider-plain (not D)."
        ),
    ] = "default",
    compare: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Other captions of the same photos.")
    ] = None,
    judgements: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="People's scores: photo, caption, score; CSV or JSONL."),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Score the photos that have both; count the others."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables there too.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with the photos, worst first."),
    ] = None,
    html_photos: Annotated[
        int, typer.Option(min=1, metavar="N", help="--html: photos on the page at most.")
    ] = 200,
    predictions_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="--data: write the captions, JSONL.")
    ] = None,
    setup_spice: Annotated[
        bool,
        typer.Option(
            "--setup-spice",
            help="Fetch what METEOR and SPICE need, or take it from the folder PREDICTIONS.",
        ),
    ] = False,
    tower: Annotated[
        str,
        typer.Option(metavar="FAMILY:NAME", help="clipscore: a CLIP of transformers: or so."),
    ] = "",
    weights: Annotated[
        str, typer.Option(help="A published tag or a file, where --tower needs one.")
    ] = "",
    beam: Annotated[
        int | None, typer.Option(min=1, max=100, help="--data: beam search of this size.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="--data: draw at random.")] = False,
    temperature: Annotated[
        float | None, typer.Option(min=0.01, help="--sample: below 1 safer, above 1 wilder.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="--sample: the likeliest tokens of this total."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="--sample: the same seed, the same captions.")
    ] = None,
    language: Annotated[
        str, typer.Option("--lang", help="Language of captions and references (default: theirs).")
    ] = "",
    format_name: Format = "",
    photos: Photos = None,
    column: Columns = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, directml or coreml.")] = "auto",
) -> None:
    """Score captions against those of people: capsmith eval PREDICTIONS REFERENCES.

    Photos are joined by name, with or without folder and suffix, or by COCO's number. CIDEr is the
    community's number (CIDEr-D of pycocoevalcap). Intervals are 95 %, by drawing photos anew.

    Exit status: 0 scored, 1 a file cannot be read, or captions and references do not match, 2 wrong
    options, 3 the model or tower cannot be loaded, 130 interrupted.
    """
    from capsmith.cli import evaluation_run as running

    if setup_spice:
        running.setup_spice(predictions)
        return
    place = _references(predictions, references, data)
    decoding = DecodingOptions(
        beam=beam, sample=sample, temperature=temperature, top_p=top_p, seed=seed
    )
    if data is None and (predictions_out or decoding != DecodingOptions()):
        raise ConfigError("--predictions-out, --beam, --sample, ... belong to --data; name one")
    split, _, split_list = split.partition("=")
    sources, base = data_sources(
        place,
        format_name=format_name,
        photos=photos,
        split=[f"{split}={split_list}"] if split_list else None,
        column=column,
        language="",
    )
    request = running.Request(
        predictions=None if data else predictions,
        references=place,
        sources=sources,
        base=base,
        split=split,
        language=language,
        metrics=metrics,
        compare=compare,
        judgements=judgements,
        allows_missing=allow_missing,
        captioner=running.CaptionerOptions(
            model=model, decoding=decoding, threads=threads, device=device
        ),
        tower=tower,
        tower_weights=weights,
    )
    outputs = running.Outputs(
        as_json=as_json,
        markdown=markdown,
        html=html,
        html_photos=html_photos,
        predictions=predictions_out,
    )
    running.run(request, outputs)


def _references(predictions: Path | None, references: Path | None, data: Path | None) -> Path:
    """The file of references, however it was given."""
    if data is not None:
        if predictions is not None:
            raise ConfigError(f"--data captions photos itself; leave {predictions} out, or --data")
        return data
    if predictions is None or references is None:
        raise ConfigError(
            "give PREDICTIONS and REFERENCES, or with --data REFERENCES a captioner to score"
        )
    return references
