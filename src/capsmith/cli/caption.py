"""`capsmith caption`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from capsmith.cli.strategy import DecodingOptions, choose_strategy
from capsmith.errors import ConfigError

SOME_PHOTO_FAILED = 1


def caption(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO",
            help="Photos; folders (all below, sorted, links not followed); - for one on stdin.",
        ),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a photo.")] = False,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Add two columns: log-probability, and its mean per token."),
    ] = False,
    num: Annotated[
        int | None, typer.Option("--num", min=1, max=100, help="Captions a photo, best first.")
    ] = None,
    beam: Annotated[
        int | None, typer.Option("--beam", min=1, max=100, help="Beam search of this size.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw at random.")] = False,
    temperature: Annotated[
        float | None, typer.Option(min=0.01, help="--sample: below 1 safer, above 1 wilder.")
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="--sample, --contrastive: only the k likeliest tokens."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="--sample: the likeliest tokens of this total."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="--sample: at least this share of the likeliest."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="--sample, --top-n: the same seed, the same captions.")
    ] = None,
    top_n: Annotated[
        bool,
        typer.Option("--top-n", help="Draw among 4 words at first, then 2, then take the best."),
    ] = False,
    contrastive: Annotated[
        bool, typer.Option("--contrastive", help="Contrastive search (Su et al. 2022).")
    ] = False,
    alpha: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="--contrastive: weight of the degeneration penalty."),
    ] = None,
    rerank: Annotated[
        Literal["none", "consensus", "match"] | None,
        typer.Option(
            help="Of the captions found, first the one most like the others, or, by the text"
            " tower, like the photo."
        ),
    ] = None,
    prompt: Annotated[str, typer.Option(help="Text that every caption begins with.")] = "",
    language: Annotated[
        str | None, typer.Option("--lang", help="Language of the captions, as in `models`.")
    ] = None,
    detail: Annotated[
        Literal["short", "normal", "long"] | None,
        typer.Option(help="How long captions are (default: normal)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A name from `models`, or a bundle's folder.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print each caption while it is being found.")
    ] = False,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also save each photo with its captions below, as JPEG."),
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Photos may be http and https addresses.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, directml or coreml.")] = "auto",
) -> None:
    """Print a caption for every photo: its path, a tab, the caption.

    Exit status: 0 every photo has a caption, 1 some photo could not be read, 2 wrong options,
    3 the model cannot be loaded, 130 interrupted.
    """
    options = DecodingOptions(
        num=num,
        beam=beam,
        sample=sample,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        top_n=top_n,
        contrastive=contrastive,
        alpha=alpha,
        rerank=rerank,
    )
    if stream and (as_json or scores or draw or (num or 1) > 1):
        raise ConfigError("--stream prints one caption as it grows; leave --json, --num, ... out")

    import capsmith
    from capsmith.cli import jobs
    from capsmith.cli.photos import find_photos

    found = find_photos(photos, allow_urls=allow_urls)
    open_url = _fetcher() if allow_urls else None
    captioner = capsmith.load(model, threads=threads, device=device, open_url=open_url)
    defaults = captioner.bundle.decoding
    job = jobs.Job(
        captioner=captioner,
        strategy=choose_strategy(options, defaults.strategy),
        limits=replace(
            defaults.limits,
            prompt=prompt or defaults.limits.prompt,
            detail=detail or defaults.limits.detail,
        ),
        language=language,
    )
    style = jobs.Style(as_json=as_json, with_scores=scores, draw=draw, open_url=open_url)
    failed = jobs.stream(job, found) if stream else jobs.caption(job, found, style)
    if failed:
        raise typer.Exit(SOME_PHOTO_FAILED)


def _fetcher() -> Callable[[str], bytes]:
    from capsmith import fetch

    return fetch.picture
