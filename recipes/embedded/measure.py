"""Score a bundle on the three validation sets, beside two baselines.

    python recipes/embedded/measure.py BUNDLE DATA [--out FILE.md] [--store FOLDER]

Captions are made with the bundle's own decoding. Baselines: the commonest training caption for
every photo, and the first caption of the training photo whose embedding is nearest. `--store` keeps
the photos' embeddings for the next time, and may be that of `capsmith text-tower`.

Prints a Markdown table. `--out` writes it, the same numbers beside it as `.json`, and the captions
as `.predictions.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import capsmith
import photos
from capsmith.atomic import write_bytes
from capsmith.data.embed import nearest_photos
from capsmith.evaluate.report import Report, report
from capsmith.evaluate.tokenize import ptb_lines

_TITLES = {
    "val-flickr8k": "Flickr8k val",
    "val-coco": "COCO (186 photos)",
    "val-pascal": "Pascal, 5 a category",
}
_HEADING = """# Scores of the embedded captioner

With its own decoding and PTB tokenisation; in brackets the 95 % interval of 1,000 bootstrap
resamples of the photos. CIDEr is CIDEr-D, its document frequencies those of each set's references.
distinct: different captions as a share of all; words: mean length. Part of COCO's val2017 is in the
training set, none of these 186 photos.

"""
Captions = dict[str, str]


def caption_set(captioner: capsmith.Captioner, data: Path, name: str) -> Captions:
    """Photo's id -> caption for every photo of a set."""
    names: list[str] = []

    def pictures() -> Iterator[Any]:
        for photo, picture in photos.photos(data, name):
            names.append(photo)
            yield picture

    captions = list(captioner.iter_captions(pictures()))
    return {photo: caption.text for photo, caption in zip(names, captions, strict=True)}


def commonest_caption(data: Path) -> str:
    """The training caption that is written most often, case and punctuation aside."""
    every = [
        line
        for name in photos.TRAIN
        for rows in photos.captions(data, name).values()
        for line in rows
    ]
    return Counter(ptb_lines(every)).most_common(1)[0][0]


def nearest_captions(captioner: capsmith.Captioner, data: Path, store: Path) -> dict[str, Captions]:
    """For each validation set, the first caption of the most similar training photo."""
    known = [photo for name in photos.TRAIN for photo in photos.read_set(data, name)]
    found: dict[str, Captions] = {}
    for name in photos.VALIDATION:
        asked = photos.read_set(data, name)
        nearest = nearest_photos(captioner, asked, known, store)
        pairs = zip(asked, nearest, strict=True)
        found[name] = {photo.id: other.texts()[0] for photo, other in pairs}
    return found


def baselines(
    captioner: capsmith.Captioner, data: Path, store: Path
) -> dict[str, dict[str, Captions]]:
    """Baseline -> set -> captions."""
    common = commonest_caption(data)
    every = {name: photos.captions(data, name) for name in photos.VALIDATION}
    return {
        "commonest caption": {name: dict.fromkeys(every[name], common) for name in every},
        "nearest neighbour": nearest_captions(captioner, data, store),
    }


def score(data: Path, name: str, captions: Captions) -> Report:
    """Score a set; every photo that has references must have a caption."""
    references = photos.captions(data, name)
    return report([captions[photo] for photo in references], list(references.values()))


def table(reports: dict[str, dict[str, Report]]) -> str:
    """Markdown: a row for each set and system."""
    head = ["set", "captions by", "CIDEr", "BLEU-4", "BLEU-1", "ROUGE-L", "distinct", "words"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, systems in reports.items():
        for system, scores in systems.items():
            cells = [_TITLES[name], system, scores.cider, scores.bleu[3], scores.bleu[0]]
            cells += [scores.rouge_l, f"{scores.distinct_share:.0%}", f"{scores.mean_words:.1f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def write_json(path: Path, content: object) -> None:
    """Write `content` as UTF-8 JSON, atomically."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    parser.add_argument("--store", type=Path, metavar="FOLDER")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    captioner = capsmith.load(options.bundle, threads=options.threads)
    predictions = {name: caption_set(captioner, options.data, name) for name in photos.VALIDATION}
    systems = {captioner.bundle.name: predictions}
    with tempfile.TemporaryDirectory() as temporary:
        systems |= baselines(captioner, options.data, options.store or Path(temporary))
    reports = {
        name: {system: score(options.data, name, sets[name]) for system, sets in systems.items()}
        for name in photos.VALIDATION
    }
    text = table(reports)
    print(text, end="")
    if options.out is not None:
        write_bytes(options.out, (_HEADING + text).encode())
        plain = {n: {s: r.to_dict() for s, r in rows.items()} for n, rows in reports.items()}
        write_json(options.out.with_suffix(".json"), plain)
        write_json(options.out.with_suffix(".predictions.json"), predictions)


if __name__ == "__main__":
    main()
