"""An evaluation as one HTML file: scores and photos, worst first; no script, no other host."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping
from importlib.resources import files

from capsmith.evaluate.result import Evaluation, ScoredPhoto
from capsmith.evaluate.tables import diversity_line, headline, tables

# Whatever a caption might smuggle in, the browser is told to run and to fetch nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_page(evaluation: Evaluation, thumbnails: Mapping[str, bytes], *, photos: int) -> str:
    """The page, with the `photos` worst photos by the first metric.

    thumbnails: photo id -> JPEG; a photo without one is shown by its name. Everything that comes
    from a file is escaped.
    """
    style = files("capsmith.evaluate").joinpath("page.css").read_text("utf-8")
    title = _escaped(f"Captions of {evaluation.captions_from}, scored")
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>\n{style}</style>",
        "<main>",
        *_summary(evaluation),
        *_photos(evaluation, thumbnails, photos),
        "</main>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(evaluation: Evaluation) -> Iterator[str]:
    yield f'<h1 class="name" dir="auto">{_escaped(evaluation.captions_from)}</h1>'
    yield f'<p class="quiet" dir="auto">{_escaped(headline(evaluation))}</p>'
    yield from (f'<p class="alarm">{_escaped(text)}</p>' for text in evaluation.warnings)
    yield '<ul class="metrics">'
    for name, score in evaluation.scores.metrics.items():
        interval = score.interval
        yield (
            f"<li>{_escaped(name)}<b>{interval.value:.3f}</b>"
            f'<span class="quiet">{interval.low:.3f} to {interval.high:.3f}</span></li>'
        )
    yield "</ul>"
    yield '<p class="quiet">Below each score its 95 % interval, by drawing photos anew.</p>'
    yield f'<p class="quiet" dir="auto">{_escaped(diversity_line(evaluation.scores.diversity))}</p>'
    for heading, (head, *body) in list(tables(evaluation))[1:]:
        yield f"<h2>{_escaped(heading)}</h2>"
        kind = "differences" if "B - A" in head else "agreement"
        yield f'<div class="wide"><table class="{kind}">'
        yield f"<tr>{''.join(f'<th>{_escaped(cell)}</th>' for cell in head)}</tr>"
        for row in body:
            yield f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>"
        yield "</table></div>"


def _photos(evaluation: Evaluation, thumbnails: Mapping[str, bytes], photos: int) -> Iterator[str]:
    rows = evaluation.worst_first()[:photos]
    first = next(iter(evaluation.scores.metrics))
    shown = f"{len(rows):,} of {len(evaluation.photos):,} photos"
    yield f"<h2>{shown}, lowest {_escaped(first)} first</h2>"
    yield '<ol class="photos">'
    for row in rows:
        photo = evaluation.photos[row]
        yield "<li>"
        yield _picture(photo, thumbnails.get(photo.id))
        yield "<div>"
        caption = _escaped(photo.caption) or '<span class="quiet">no words</span>'
        yield f'<p class="caption" dir="auto" lang="{_escaped(evaluation.language)}">{caption}</p>'
        yield f'<ul class="references quiet" lang="{_escaped(evaluation.language)}">'
        yield from (f'<li dir="auto">{_escaped(text)}</li>' for text in photo.references)
        yield "</ul>"
        yield '<dl class="scores">'
        for name, score in evaluation.scores.metrics.items():
            value = f"{score.per_caption[row]:.3f}"
            yield f"<div><dt>{_escaped(name)}</dt><dd>{value}</dd></div>"
        yield "</dl>"
        yield f'<p class="quiet name" dir="auto">{_escaped(photo.id)}</p>'
        yield "</div>"
        yield "</li>"
    yield "</ol>"


def _picture(photo: ScoredPhoto, jpeg: bytes | None) -> str:
    if jpeg is None:
        return '<div class="none">photo not found</div>'
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{_escaped(photo.id)}">'


def _escaped(text: str) -> str:
    """Text as HTML shows it; controls and undecodable bytes, which HTML cannot hold, as boxes."""
    return html.escape("".join(c if _is_allowed(c) else "\N{REPLACEMENT CHARACTER}" for c in text))


def _is_allowed(character: str) -> bool:
    code = ord(character)
    return code >= 0x20 and not 0x7F <= code <= 0x9F and not 0xD800 <= code <= 0xDFFF
