"""`capsmith data check`, `capsmith data download` and `capsmith data noise`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from capsmith.errors import ConfigError, DataError

if TYPE_CHECKING:
    from capsmith.data.manifest import Manifest
    from capsmith.data.sources import DataSource

SOMETHING_IS_WRONG = 1

Item = TypeVar("Item")

app = typer.Typer(
    help="Check, fetch and measure data sets of photos with captions.", rich_markup_mode=None
)

DataPath = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A file or folder of captions, a manifest, or a JSON file that names several.",
    ),
]
Format = Annotated[
    str, typer.Option("--format", help="The captions' format, where it is not to be found.")
]
Photos = Annotated[
    list[str] | None,
    typer.Option(metavar="PLACE", help="Folder or tar with the photos (default: near DATA)."),
]
Splits = Annotated[
    list[str] | None,
    typer.Option("--split", metavar="NAME=LIST", help="A split and the list of its photos."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="ROLE=NAME", help="A table's photo, caption, ... column."),
]
Language = Annotated[str, typer.Option("--lang", help="Language of the captions (default: en).")]


@app.command("check")
def check(
    data: DataPath,
    *,
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write a clean manifest there.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Text used for training beside, one caption a line."),
    ] = None,
    max_words: Annotated[
        int, typer.Option(min=1, help="More words make a caption over-long.")
    ] = 100,
    skip_photos: Annotated[
        bool, typer.Option("--skip-photos", help="Open no photo; look at the captions only.")
    ] = False,
    format_name: Format = "",
    photos: Photos = None,
    split: Splits = None,
    column: Columns = None,
    language: Language = "",
) -> None:
    """Say what is wrong with a data set, one line each: file, line, what.

    Found are malformed rows, encoding errors, empty and over-long captions, photos that are
    missing, unreadable or in two splits, near-duplicates in two splits, captions that look like
    those of other photos, and captions of held-out photos in --text.

    Exit status: 0 nothing is wrong, or --fix wrote a clean manifest; 1 something is wrong or
    cannot be read; 2 wrong options.
    """
    from capsmith.cli.output import escape_controls, print_line
    from capsmith.data import check as checking
    from capsmith.data.manifest import write_manifest
    from capsmith.data.sources import DataSource

    if fix is not None and fix.resolve() == data.resolve():
        raise ConfigError(f"--fix {fix}: would replace the data itself; name a new file")
    sources, base = data_sources(
        data, format_name=format_name, photos=photos, split=split, column=column, language=language
    )
    texts = [
        DataSource(path=str(Path(f).absolute()), format="text", language=language)
        for f in text or ()
    ]
    checked = checking.check(
        [*sources, *texts],
        base=base,
        max_words=max_words,
        opens_photos=not skip_photos,
        watch=watched,
    )
    for finding in checked.findings:
        print_line(escape_controls(str(finding)))
    print_line(_counts(checked.manifest))
    if checked.findings:
        print_line(f"{len(checked.findings)} findings: {checking.kinds_of(checked.findings)}")
    if fix is not None:
        if not checked.clean.photos:
            raise DataError(f"{data}: nothing is left of it, so {fix} was not written")
        write_manifest(checked.clean, fix)
        print_line(f"{escape_controls(str(fix))}: {_counts(checked.clean)}")
    elif checked.findings:
        raise typer.Exit(SOMETHING_IS_WRONG)


@app.command("download")
def download(
    captions: Annotated[
        Path, typer.Argument(metavar="TSV", help="Conceptual Captions: caption, tab, address.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the photos go.")],
    *,
    parallel: Annotated[
        int, typer.Option(min=1, max=256, help="Hosts asked at the same time.")
    ] = 16,
    retry: Annotated[
        bool, typer.Option("--retry", help="Ask again for what gave no photo before.")
    ] = False,
) -> None:
    """Fetch the photos of Conceptual Captions and write FOLDER/manifest.jsonl.

    Each host gets one request at a time, with half a second between two. Stopped in any way and
    run again, it goes on where it stopped.

    Exit status: 0 every address gave a photo, 1 some did not (FOLDER/failed.jsonl says why), or
    TSV cannot be read, 2 wrong options, 130 interrupted.
    """
    from capsmith import fetch
    from capsmith.cli.output import escape_controls, print_line
    from capsmith.data.download import download as get

    made = get(
        captions,
        folder,
        fetch=fetch.picture,
        parallel=parallel,
        retries_failed=retry,
        watch=watched,
    )
    summary = f"{folder}: {made.photos} photos of {made.addresses} addresses, {made.failed} failed"
    print_line(escape_controls(summary))
    if made.failed:
        raise typer.Exit(SOMETHING_IS_WRONG)


@app.command("noise")
def noise(
    data: DataPath,
    *,
    encoder: Annotated[
        str,
        typer.Option(metavar="FAMILY:NAME", help="A CLIP of transformers: or open-clip:."),
    ],
    weights: Annotated[
        str, typer.Option(help="A published tag or a file, where --encoder needs one.")
    ] = "",
    sample: Annotated[
        int, typer.Option(min=1, help="Photos whose captions are compared, evenly spaced.")
    ] = 100,
    format_name: Format = "",
    photos: Photos = None,
    split: Splits = None,
    column: Columns = None,
    language: Language = "",
) -> None:
    """Estimate the noise for training on captions alone (CapDec) and print its variance.

    It is the mean largest difference, in any coordinate, between the embeddings of two captions of
    one photo. No photo is opened.

    Exit status: 0 it was printed; 1 the data cannot be read, or no photo has two captions; 2 wrong
    options; 3 the encoder cannot be loaded.
    """
    from capsmith.cli.output import escape_controls, print_line
    from capsmith.data.sources import read_data

    with training_extra("data noise"):
        from capsmith.models.encoder_names import open_text_tower, parse_spec
        from capsmith.models.text_only import caption_groups, estimate_caption_noise

    sources, base = data_sources(
        data, format_name=format_name, photos=photos, split=split, column=column, language=language
    )
    groups = caption_groups(read_data(sources, base=base), photos=sample)
    tower = open_text_tower(parse_spec(encoder, weights=weights))
    variance = estimate_caption_noise(groups, tower)
    print_line(
        escape_controls(
            f"noise variance {variance:.4g} (of {sum(map(len, groups))} captions, by {tower.name})"
        )
    )


@contextmanager
def training_extra(wanted_by: str) -> Iterator[None]:
    """Imports that only the extra "train" installs; `ConfigError` has the command that does."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"capsmith {wanted_by} needs {error.name}, which is not installed; run: pip install"
            ' "capsmith[train]"'
        ) from None


def data_sources(
    data: Path,
    *,
    format_name: str,
    photos: list[str] | None,
    split: list[str] | None,
    column: list[str] | None,
    language: str,
) -> tuple[list[DataSource], Path]:
    """The data sets that a command line names, and the folder that their paths start from."""
    from capsmith.data.sources import DataSource, is_mixture, read_mixture

    if data.is_file() and not format_name and is_mixture(data):
        if photos or split or column or language:
            raise ConfigError(f"{data}: names its data sets itself; write the options there")
        return list(read_mixture(data).sources), data.parent
    source = DataSource(
        path=str(data),
        format=format_name,
        photos=tuple(photos or ()),
        splits=_pairs(split, "--split"),
        columns=_pairs(column, "--column"),
        language=language,
    )
    return [source], Path()


def watched(items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items, while stderr shows how many of them are done."""
    from capsmith.cli.progress import Progress

    with Progress(total) as progress:
        for item in items:
            yield item
            progress.advance()


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for entry in given or ():
        name, equals, value = entry.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{option} {entry} is not of the form NAME=VALUE")
        pairs[name] = value
    return pairs


def _counts(manifest: Manifest) -> str:
    photos = Counter(photo.split or "no split" for photo in manifest.photos)
    captions = Counter(line.language for photo in manifest.photos for line in photo.captions)
    parts = [f"{len(manifest.photos)} photos ({_listed(photos)})"]
    parts.append(f"{captions.total()} captions ({_listed(captions)})")
    if manifest.texts:
        parts.append(f"{len(manifest.texts)} texts without photos")
    return ", ".join(parts)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
