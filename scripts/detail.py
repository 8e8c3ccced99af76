"""How long short, normal and long captions are, by language, and what they score.

    python scripts/detail.py [BUNDLE] [--data ../shared/data] [--photos 300] [--out PAGE.md]

Captions of Flickr8k's first validation photos by a bundle that was trained with `details`, beside
those that people wrote. Prints a Markdown table, and puts it between the markers "detail" of --out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from page import exit_status, put_between
from retrieval import LANGUAGES, read_photos

import capsmith
from capsmith.data.manifest import Photo
from capsmith.description import DETAILS
from capsmith.errors import ConfigError
from capsmith.evaluate.languages import tokenised
from capsmith.evaluate.lexical import cider_d
from capsmith.evaluate.statistics import mean_interval

HEAD = "| language | captions by | words | 10 % to 90 % | CIDEr-D |\n|" + " --- |" * 5


def rows(captioner: capsmith.Captioner, photos: Sequence[Photo]) -> Iterator[str]:
    """Markdown: for each language a row for people and one for each length."""
    features = captioner.encode(photo.source.picture() for photo in photos)
    limits = captioner.bundle.decoding.limits
    for language in LANGUAGES:
        chosen = [row for row, photo in enumerate(photos) if photo.texts(language)]
        if language not in captioner.languages or not chosen:
            continue
        references = [tokenised(photos[row].texts(language), language) for row in chosen]
        lengths = _lengths([line for lines in references for line in lines])
        yield f"| {language} | people | {lengths} | |"
        for detail in DETAILS:
            found = captioner.caption_features(
                features[chosen], limits=replace(limits, detail=detail), language=language
            )
            lines = tokenised([caption.text for caption in found], language)
            score = mean_interval(cider_d(lines, references).per_photo)
            yield f"| {language} | `{detail}` | {_lengths(lines)} | {score} |"


def _lengths(lines: Sequence[str]) -> str:
    words = [len(line.split()) for line in lines]
    low, high = np.percentile(words, (10, 90))
    return f"{np.mean(words):.1f} | {low:.0f} to {high:.0f}"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--out", type=Path, metavar="PAGE.md")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()

    def work() -> None:
        captioner = capsmith.load(options.bundle, threads=options.threads)
        if not captioner.bundle.detail_tokens:
            name = captioner.bundle.name
            raise ConfigError(f"{name}: was trained without lengths; name another bundle")
        text = "\n".join((HEAD, *rows(captioner, read_photos(options.data, options.photos)))) + "\n"
        print(text, end="")
        if options.out is not None:
            put_between(options.out, text, "detail")

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
