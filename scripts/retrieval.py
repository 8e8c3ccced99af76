"""How well a bundle's text tower finds photos and captions, and what re-ranking by it does.

    python scripts/retrieval.py BUNDLE [--data ../shared/data] [--store FOLDER] [--out PAGE.md]

Recall@1, 5 and 10 on Flickr8k's validation photos, both ways and by language, beside chance; then
CIDEr-D of five beams a photo in the order of their scores, by consensus and by match. Prints the
page, and writes it to --out. --store keeps the photos' embeddings, and may be that of `capsmith
text-tower`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from page import exit_status

import capsmith
from capsmith import atomic
from capsmith.data.embed import stored_embeddings
from capsmith.data.manifest import Photo
from capsmith.data.sources import DataSource, read_data
from capsmith.errors import ConfigError, DataError
from capsmith.evaluate.lexical import cider_d
from capsmith.evaluate.retrieval import AT, Retrieval, retrieval
from capsmith.evaluate.statistics import mean_interval, paired_difference
from capsmith.evaluate.tokenize import ptb_lines
from capsmith.runtime.consensus import by_consensus
from capsmith.runtime.embedding import embedding
from capsmith.types import Rerank

PAGE = Path(__file__).parents[1] / "docs" / "results" / "retrieval.md"
LANGUAGES = {
    "en": "captions.txt",
    "de": "captions.de.csv",
    "zh": "flickr8kzhc.caption.txt",
    "fr": "captions.fr.csv",
    "cs": "captions.cs.csv",
}
ORDERS: dict[Rerank, str] = {
    "none": "score of the beam",
    "consensus": "consensus",
    "match": "match",
}
BEAMS = 5
RERANKED = 300
"""Photos of Flickr8k whose captions are re-ranked."""
_CHUNK = 128
Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]

_HEADING = """# Words and photos in one space

The text tower of {name} {version}, {size:.2f} MB with its tokenizer, as the runtime runs it.

    python scripts/retrieval.py BUNDLE

## Recall

Photos of Flickr8k's official validation split, none of which any part was trained on. "Photo": of
all captions, the share whose photo is among the k nearest photos; "text": of all photos, the share
that has one of its captions among the k nearest captions. In per cent; chance in brackets. French
and Czech have one caption a photo where the others have five, so "text" is harder there.

"""
_RERANKING = """
## Re-ranking

{beams} beams a photo (`Beam(size={beams}, candidates={beams}, rerank=...)`), of which the first is
scored: CIDEr-D with the 95 % interval of 1,000 bootstrap resamples of the photos; its difference
from that of the beams' own order over the same resamples: where the interval holds 0, there is no
measurable difference. "Other": share of photos whose caption is another one.

"""


@dataclass(frozen=True, slots=True)
class Ranked:
    """CIDEr-D of each photo, and the captions, of one order of candidates."""

    captions: list[str]
    per_photo: Scores


def read_photos(data: Path, limit: int | None) -> tuple[Photo, ...]:
    """Flickr8k's validation photos with their captions in all languages."""
    folder = data / "flickr8k"
    val = {"val": str(folder / "Flickr_8k.devImages.txt")}
    sources = [
        DataSource(path=str(folder / name), splits=val, language=language)
        for language, name in LANGUAGES.items()
        if (folder / name).is_file()
    ]
    if not sources:
        raise DataError(f"{folder}: has no {LANGUAGES['en']}; give the folder of all data sets")
    return read_data(sources).of_split("val").photos[:limit]


def recalls(
    captioner: capsmith.Captioner, photos: Sequence[Photo], vectors: Vectors
) -> Iterator[tuple[str, Retrieval]]:
    """Recall for each language that there are captions in."""
    for language in LANGUAGES:
        rows = [row for row, photo in enumerate(photos) if photo.texts(language)]
        texts = [
            (place, text) for place, row in enumerate(rows) for text in photos[row].texts(language)
        ]
        if texts:
            embeddings = captioner.embed_text([text for _, text in texts])
            yield language, retrieval(vectors[rows], embeddings, [place for place, _ in texts])


def recall_table(found: Sequence[tuple[str, Retrieval]]) -> str:
    """Markdown: a row for each language."""
    head = ["language", "photos", "captions"]
    head += [f"photo R@{k}" for k in AT] + [f"text R@{k}" for k in AT]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for language, scores in found:
        shares = zip(
            (*scores.photo, *scores.text),
            (*scores.random_photo, *scores.random_text),
            strict=True,
        )
        cells = [language, f"{scores.photos:,}", f"{scores.texts:,}"]
        cells += [f"{100 * share:.1f} ({100 * chance:.1f})" for share, chance in shares]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def rank(captioner: capsmith.Captioner, photos: Sequence[Photo]) -> dict[Rerank, Ranked]:
    """The first captions by each order, scored against the English ones."""
    captions: dict[Rerank, list[str]] = {order: [] for order in ORDERS}
    strategy = capsmith.Beam(size=BEAMS, candidates=BEAMS)
    rest = iter(photos)
    while chunk := list(islice(rest, _CHUNK)):
        features = captioner.encode(photo.source.picture() for photo in chunk)
        vectors = embedding(features, captioner.bundle.encoder)
        found = captioner.caption_features(features, strategy, language="en")
        for vector, caption in zip(vectors, found, strict=True):
            beams = list(caption.candidates)
            captions["none"].append(beams[0].text)
            captions["consensus"].append(by_consensus(beams)[0].text)
            marks = captioner.embed_text([beam.text for beam in beams]) @ vector
            captions["match"].append(beams[int(marks.argmax())].text)
    lines = iter(ptb_lines([text for photo in photos for text in photo.texts("en")]))
    references = [[next(lines) for _ in photo.texts("en")] for photo in photos]
    return {
        order: Ranked(made, cider_d(ptb_lines(made), references).per_photo)
        for order, made in captions.items()
    }


def rank_table(sets: dict[str, dict[Rerank, Ranked]]) -> str:
    """Markdown: a row for each set and order."""
    head = ["photos", "first caption by", "CIDEr-D", "difference", "other"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, orders in sets.items():
        plain = orders["none"]
        for order, ranked in orders.items():
            changed = np.mean(
                [a != b for a, b in zip(plain.captions, ranked.captions, strict=True)]
            )
            cells = [name, ORDERS[order], str(mean_interval(ranked.per_photo)), "", ""]
            if order != "none":
                difference = paired_difference(plain.per_photo, ranked.per_photo)
                cells[3:] = [str(difference), f"{changed:.0%}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(captioner: capsmith.Captioner, data: Path, store: Path, limit: int | None) -> str:
    """The whole page; raises `DataError` and `BundleError`."""
    bundle = captioner.bundle
    captioner.embed_text([""])  # without a tower nothing else is worth waiting for
    photos = read_photos(data, limit)
    size = sum(bundle.files[name].size_bytes for name in ("text.onnx", "text_tokenizer.json"))
    text = _HEADING.format(name=bundle.name, version=bundle.version, size=size / 1e6)
    vectors = stored_embeddings(captioner, photos, store)
    text += recall_table(list(recalls(captioner, photos, vectors)))
    if "en" not in captioner.languages:
        raise ConfigError(f"{bundle.name} does not caption in English, which is re-ranked here")
    flickr8k = photos[: min(RERANKED, limit or RERANKED)]
    coco = read_data([DataSource(path=str(data / "coco" / "captions.json"))]).photos[:limit]
    sets = {
        f"COCO ({len(coco)})": rank(captioner, coco),
        f"Flickr8k val ({len(flickr8k)})": rank(captioner, flickr8k),
    }
    return text + _RERANKING.format(beams=BEAMS) + rank_table(sets)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("bundle")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--store", type=Path, metavar="FOLDER")
    parser.add_argument("--limit", type=int, help="only so many photos of each set, for a try")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="PAGE.md")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()

    def work() -> None:
        captioner = capsmith.load(options.bundle, threads=options.threads)
        with tempfile.TemporaryDirectory() as temporary:
            store = options.store or Path(temporary)
            text = page(captioner, options.data, store, options.limit)
        print(text, end="")
        atomic.write_text(options.out, text)

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
