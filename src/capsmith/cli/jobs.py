"""The work behind `capsmith caption`: photos through a captioner, results printed in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from capsmith.cli.output import (
    complain,
    escape_controls,
    escape_name,
    json_failure,
    json_line,
    print_line,
    print_now,
    text_lines,
)
from capsmith.cli.photos import Found, Photo
from capsmith.cli.progress import Progress
from capsmith.errors import CapsmithError, ConfigError, ImageError
from capsmith.runtime.captioner import Captioner
from capsmith.runtime.pictures import open_picture
from capsmith.types import Caption, Limits, Strategy

Draw = Callable[[Photo, Caption], None]
OpenUrl = Callable[[str], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Which captioner does the work, and how it decodes."""

    captioner: Captioner
    strategy: Strategy
    limits: Limits
    language: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How captions are shown; `draw` is the folder for photos with their captions below."""

    as_json: bool = False
    with_scores: bool = False
    draw: Path | None = None
    open_url: OpenUrl | None = None


@dataclass(slots=True)
class _Report:
    """Prints results as they come, and counts what failed."""

    style: Style
    progress: Progress
    draw: Draw | None
    failed: int = 0

    def show(self, photo: Photo, caption: Caption) -> None:
        self.progress.clear()
        if self.style.as_json:
            print_line(json_line(photo.name, caption))
        else:
            for line in text_lines(photo.name, caption, with_scores=self.style.with_scores):
                print_line(line)
        if self.draw is not None:
            try:
                self.draw(photo, caption)
            except CapsmithError as error:
                self.failed += 1
                complain(escape_controls(str(error)))
        self.progress.advance()

    def fail(self, photo: Photo, error: CapsmithError) -> None:
        self.progress.clear()
        self.failed += 1
        if self.style.as_json:
            print_line(json_failure(photo.name, error))
        complain(escape_controls(str(error)))
        self.progress.advance()


def caption(job: Job, found: Found, style: Style) -> int:
    """Caption all photos that were found and print each as soon as it and all before it are done.

    Returns how many photos or folders failed. Memory does not grow with the number of photos.
    """
    if style.draw is not None:
        _refuse_photos_own_folder(style.draw, found)
    draw = None if style.draw is None else _drawer(style.draw, style.open_url)
    with Progress(len(found.photos)) as progress:
        report = _Report(style, progress, draw)
        waiting = iter(found.photos)
        captions = job.captioner.iter_captions(
            (photo.picture for photo in found.photos),
            job.strategy,
            limits=job.limits,
            language=job.language,
            # Called in the photos' order, after the caption before and before the next one.
            on_error=lambda _, error: report.fail(next(waiting), error),
        )
        for result in captions:
            report.show(next(waiting), result)
    return report.failed + _tell_about(found)


def stream(job: Job, found: Found) -> int:
    """Print each photo's caption piece by piece; returns how many photos or folders failed."""
    failed = 0
    for photo in found.photos:
        try:
            pieces = job.captioner.stream(
                photo.picture, job.strategy, limits=job.limits, language=job.language
            )
        except ImageError as error:
            failed += 1
            complain(escape_controls(str(error)))
            continue
        print_now(escape_name(photo.name) + "\t")
        for piece in pieces:
            print_now(escape_controls(piece))
        print_line("")
    return failed + _tell_about(found)


def _tell_about(found: Found) -> int:
    for failure in found.failures:
        complain(failure)
    if not found.photos and not found.failures:
        complain("found no photo")
    if found.skipped:
        files = "file" if found.skipped == 1 else "files"
        complain(f"skipped {found.skipped} other {files}")
    return len(found.failures)


def _drawer(folder: Path, open_url: OpenUrl | None) -> Draw:
    """What saves a photo with its captions in `folder`, which is made."""
    from capsmith.cli.drawing import Fonts, draw_captions, save_drawing

    _make_folder(folder)
    fonts, taken = Fonts(), set[Path]()

    def draw(photo: Photo, caption: Caption) -> None:
        picture = open_picture(photo.picture, open_url=open_url)
        texts = [candidate.text for candidate in caption.candidates]
        save_drawing(draw_captions(picture, texts, fonts), folder, photo, taken)

    return draw


def _refuse_photos_own_folder(folder: Path, found: Found) -> None:
    """Raise `ConfigError` where drawings would lie beside photos, and take the place of some."""
    place = folder.resolve()
    for photo in found.photos:
        if not isinstance(photo.picture, str) or not Path(photo.picture).exists():
            continue
        if Path(photo.picture).resolve().parent == (place / photo.relative).parent:
            raise ConfigError(
                f"--draw {escape_name(str(folder))}: is the folder of {escape_name(photo.name)};"
                " drawings would take the place of photos, so choose another"
            )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--draw {escape_name(str(folder))}: cannot be made: {error.strerror}; choose another"
        ) from error
