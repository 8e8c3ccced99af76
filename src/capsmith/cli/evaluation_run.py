"""`capsmith eval` from its options to its files: reading, captioning, towers, output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capsmith import atomic
from capsmith.cli.data import watched
from capsmith.cli.evaluation import (
    Joiner,
    Source,
    Wanted,
    common_photos,
    evaluate,
    join_judgements,
    where,
)
from capsmith.cli.output import complain, escape_controls, print_line
from capsmith.cli.strategy import DecodingOptions, choose_strategy
from capsmith.data.photos import PhotoBytes
from capsmith.data.predictions import Prediction, Predictions, read_judgements, read_predictions
from capsmith.data.references import References, find_pictures, read_references
from capsmith.data.rows import Place
from capsmith.data.sources import DataSource
from capsmith.errors import CapsmithError, ConfigError, DataError, ImageError
from capsmith.evaluate.languages import is_english
from capsmith.evaluate.metrics import (
    JAVA_ONLY,
    SCORERS,
    Captions,
    Metric,
    Scorer,
    choose_metrics,
    spice_scorer,
)
from capsmith.evaluate.result import Evaluation
from capsmith.runtime.captioner import Captioner, load

_NAMES = (*SCORERS, "clipscore")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerOptions:
    """Which captioner, and how it decodes."""

    model: str | None
    decoding: DecodingOptions
    threads: int | None
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be scored, by what; without `predictions` the captioner makes them."""

    predictions: Path | None
    references: Path
    sources: Sequence[DataSource]
    base: Path
    split: str
    language: str
    metrics: str
    compare: Path | None
    judgements: Path | None
    allows_missing: bool
    captioner: CaptionerOptions
    tower: str
    tower_weights: str

    @property
    def inputs(self) -> list[Path]:
        """The files that are read."""
        found = [self.predictions, self.references, self.compare, self.judgements]
        return [path for path in found if path is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where results go, beside the terminal."""

    as_json: bool
    markdown: Path | None
    html: Path | None
    html_photos: int
    predictions: Path | None

    @property
    def files(self) -> list[Path]:
        """The files that are written."""
        found = [self.markdown, self.html, self.predictions]
        return [path for path in found if path is not None]


def run(request: Request, outputs: Outputs) -> None:
    """Score, write the files, print the table. Raises what reading and scoring raise."""
    _check_outputs(request, outputs)
    chosen = choose_metrics(request.metrics, _NAMES)
    references = read_references(
        request.sources, base=request.base, split=request.split, language=request.language
    )
    pictures = _Pictures(request, references)
    name = where(request.references, request.split)
    joiner = Joiner(references, name, request.allows_missing)
    first = _first(request, pictures, joiner)
    if outputs.predictions is not None:
        _write(outputs.predictions, _json_lines(first.predictions))
    captions = joiner.captions_of(first)
    other, other_captions = None, captions
    if request.compare is not None:
        other = Source(request.compare.name, read_predictions(request.compare))
        other_captions = joiner.captions_of(other)
    photos = common_photos(joiner, captions, other_captions)
    judgements = read_judgements(request.judgements) if request.judgements else ()
    wanted = Wanted(
        first=first,
        captions=captions,
        other=other,
        other_captions=other_captions,
        photos=photos,
        judgements=join_judgements(joiner, judgements, photos),
    )
    scorers = _Scorers(request, pictures, joiner).of(chosen, photos)
    _show(evaluate(joiner, wanted, scorers), pictures, outputs)


def setup_spice(folder: Path | None) -> None:
    """Put the files of METEOR and SPICE in place: fetched, or out of a folder."""
    from capsmith.cli.progress import Bytes
    from capsmith.evaluate import jar_setup, jars

    missing = jars.missing_files()
    with Bytes() as shown:
        place = jar_setup.setup_spice(folder, progress=shown.update)
    if missing:
        print_line(escape_controls(f"put in place: {jars.describe(missing)}"))
    print_line(escape_controls(f"{place}: METEOR and SPICE have all their files"))


class _Pictures:
    """The photos of references, looked for when they are first wanted."""

    def __init__(self, request: Request, references: References) -> None:
        self._request = request
        self._photos = references.photos
        self._found: dict[str, PhotoBytes | None] | None = None

    def of(self, photo: str) -> PhotoBytes | None:
        """Where the photo with this id is."""
        if self._found is None:
            places = find_pictures(self._photos, self._request.sources, self._request.base)
            pairs = zip(self._photos, places, strict=True)
            self._found = {photo.id: place for photo, place in pairs}
        return self._found[photo]

    def all_of(self, photos: Sequence[str], wanted_by: str) -> list[PhotoBytes]:
        """Where all of them are; raises `DataError` where one is not found."""
        found = {photo: self.of(photo) for photo in photos}
        missing = [photo for photo, place in found.items() if place is None]
        if missing:
            raise DataError(
                f"{wanted_by}: {len(missing)} of {len(photos)} photos are not found, first"
                f" {missing[0]}; say where they are with --photos"
            )
        return [place for place in found.values() if place is not None]


class _Scorers:
    """Makes the scorers that are asked for; "all" leaves out, with a warning, what cannot run."""

    def __init__(self, request: Request, pictures: _Pictures, joiner: Joiner) -> None:
        self._request, self._pictures, self._joiner = request, pictures, joiner
        self._is_lenient = "all" in request.metrics.lower().split(",")

    def of(self, chosen: Sequence[str], photos: Sequence[str]) -> dict[str, Scorer]:
        """By name, in the order of tables. Raises `ConfigError` for one that cannot run here."""
        found: dict[str, Scorer] = {}
        for name in chosen:
            try:
                found[name] = self._clip(photos) if name == "clipscore" else self._of_words(name)
            except CapsmithError as error:
                if not self._is_lenient:
                    raise
                self._joiner.warnings.append(f"left out: {error}")
        return found

    def _of_words(self, name: str) -> Scorer:
        language = self._joiner.references.language
        if name in JAVA_ONLY:
            if not is_english(language):
                raise ConfigError(f"{name}: knows English only, not {language!r}; leave it out")
            _require_java(name)
        return _watched_spice if name == "spice" else SCORERS[name]

    def _clip(self, photos: Sequence[str]) -> Scorer:
        from capsmith.cli.towers import BundleTower, NamedTower, Tower, clip_scorer

        options, tower = self._request.captioner, self._request.tower
        chosen: Tower
        if tower:
            chosen = NamedTower(tower, self._request.tower_weights, device=options.device)
        else:
            chosen = BundleTower(_load(options))
        places = self._pictures.all_of(photos, "clipscore")
        return clip_scorer(chosen, [place.picture() for place in places])


def _watched_spice(captions: Captions) -> Mapping[str, Metric]:
    from capsmith.cli.progress import Progress

    with Progress(len(captions.texts)) as progress:
        return spice_scorer(lambda done, _total: progress.reach(done))(captions)


def _require_java(name: str) -> None:
    """Raise `ConfigError` where Java or a file is missing, before anything is scored."""
    from capsmith.evaluate import jars
    from capsmith.evaluate.java import find_java

    find_java()
    files = jars.METEOR if name == "meteor" else jars.SPICE
    jars.need_files(files, wanted_by=name.upper())


def _first(request: Request, pictures: _Pictures, joiner: Joiner) -> Source:
    if request.predictions is not None:
        return Source(request.predictions.name, read_predictions(request.predictions))
    references = joiner.references
    captioner = _load(request.captioner)
    photos = [photo.id for photo in references.photos]
    if request.allows_missing:
        photos = [photo for photo in photos if pictures.of(photo) is not None] or photos
    places = dict(zip(photos, pictures.all_of(photos, str(request.references)), strict=True))
    defaults = captioner.bundle.decoding
    failed: list[tuple[str, ImageError]] = []
    made = captioner.iter_captions(
        (place.picture() for place in places.values()),
        choose_strategy(request.captioner.decoding, defaults.strategy),
        limits=defaults.limits,
        language=references.language,
        on_error=lambda index, error: failed.append((photos[index], error)),
    )
    texts = [caption.text for caption in watched(made, len(photos))]
    for _, error in failed:
        complain(escape_controls(str(error)))
    unread = {photo for photo, _ in failed}
    good = [photo for photo in photos if photo not in unread]
    captions = (
        Prediction(photo, text, Place(request.references, entry=photo))
        for photo, text in zip(good, texts, strict=True)
    )
    return Source(captioner.bundle.name, Predictions(tuple(captions), tuple(sorted(unread))))


def _load(options: CaptionerOptions) -> Captioner:
    return load(options.model, threads=options.threads, device=options.device)


def _check_outputs(request: Request, outputs: Outputs) -> None:
    """Raise `ConfigError` before anything is scored for what could not be written, or must not."""
    taken = [path.resolve() for path in request.inputs]
    for path in outputs.files:
        if path.resolve() in taken:
            raise ConfigError(f"{path}: is read or written already; write to another file")
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: cannot be written; name a file in a folder that exists")
        taken.append(path.resolve())


def _show(evaluation: Evaluation, pictures: _Pictures, outputs: Outputs) -> None:
    from capsmith.evaluate.page import html_page
    from capsmith.evaluate.tables import markdown, text_lines

    for warning in evaluation.warnings:
        complain(escape_controls(f"warning: {warning}"))
    if outputs.markdown is not None:
        _write(outputs.markdown, markdown(evaluation))
    if outputs.html is not None:
        worst = [evaluation.photos[row].id for row in evaluation.worst_first()]
        shown = dict(_thumbnails(worst[: outputs.html_photos], pictures))
        _write(outputs.html, html_page(evaluation, shown, photos=outputs.html_photos))
    if outputs.as_json:
        print_line(json.dumps(evaluation.to_dict(), ensure_ascii=False, allow_nan=False))
    else:
        for line in text_lines(evaluation):
            print_line(escape_controls(line))


def _thumbnails(photos: Sequence[str], pictures: _Pictures) -> Iterator[tuple[str, bytes]]:
    """(id, JPEG) of the photos that can be found and read."""
    from capsmith.runtime.pictures import open_picture
    from capsmith.runtime.thumbnail import thumbnail

    for photo in photos:
        place = pictures.of(photo)
        if place is None:
            continue
        try:
            yield photo, thumbnail(open_picture(place.picture()))
        except ImageError as error:
            complain(escape_controls(f"warning: {error}"))


def _json_lines(predictions: Predictions) -> str:
    lines = ({"photo": p.photo, "caption": p.caption} for p in predictions.captions)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _write(path: Path, text: str) -> None:
    try:
        # Names that are not UTF-8 stay as escapes, which JSON reads as such.
        atomic.write_bytes(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another") from error
