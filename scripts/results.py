"""Score captioners on the validation photos of a data set, beside two baselines.

    python scripts/results.py RUN_OR_BUNDLE ... [--data ../shared/data/flickr8k] [--lang de]

Each captioner is the folder of a training run (its `best` is scored), a bundle's folder or a name;
the embedded captioner is always among them. Those that speak the language of --lang (default: en),
which is that of the data, are scored. They caption with their own decoding. Baselines: the
training caption that is written most often, for every photo; and the first caption of the training
photo whose embedding by the embedded captioner's encoder is nearest (cosine).

Prints a Markdown table and puts it between the language's markers in --out, with the curves of the
runs, which are copied into the folder `images` beside that of the page. --store keeps the photos'
embeddings for the next time, and may be that of `capsmith text-tower`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from page import exit_status, put_between

import capsmith
from capsmith import atomic
from capsmith.data.embed import nearest_photos
from capsmith.data.manifest import Photo
from capsmith.data.sources import DataSource, read_data
from capsmith.errors import ConfigError, DataError
from capsmith.evaluate.languages import tokenised
from capsmith.evaluate.report import Report, report

PAGE = Path(__file__).parents[1] / "docs" / "results" / "training.md"
COMMONEST, NEAREST = "commonest caption", "nearest neighbour"
HEAD = (
    "captions by", "CIDEr-D", "BLEU-4", "ROUGE-L", "distinct", "words", "CIDEr-D / neighbour",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Splits:
    """The photos whose captions are known, and those to caption."""

    train: tuple[Photo, ...]
    val: tuple[Photo, ...]
    language: str


def read_splits(data: Path, language: str, limit: int | None) -> Splits:
    """The photos of both splits, at most `limit` of each; those of no split train.

    data: captions, or a folder; of several files in it `captions.txt` is read. language: of the
    captions, where their file does not say. Raises `DataError`.
    """
    whole = data / "captions.txt"
    path = str(whole if whole.is_file() else data)
    manifest = read_data([DataSource(path=path, language=language)])
    train = (*manifest.of_split("train").photos, *manifest.of_split("").photos)
    val = manifest.of_split("val").photos
    if not train or not val:
        empty = "val" if train else "train"
        raise DataError(f"{data}: its split {empty} is empty; put a list of its photos beside it")
    return Splits(train[:limit], val[:limit], language)


def load(name: str) -> capsmith.Captioner:
    """The captioner of a run, a bundle's folder or a name."""
    best = Path(name) / "best"
    return capsmith.load(best if best.is_dir() else name)


def load_all(names: Sequence[str], language: str) -> dict[str, capsmith.Captioner]:
    """The captioners that speak the language by what they are called, the embedded one last."""
    found: dict[str, capsmith.Captioner] = {}
    for captioner in (*map(load, names), capsmith.load()):
        known = found.setdefault(captioner.bundle.name, captioner)
        if known.bundle.folder != captioner.bundle.folder:
            raise ConfigError(
                f"{captioner.bundle.folder}: is called {known.bundle.name}, as"
                f" {known.bundle.folder} is; score them one by one"
            )
    return {name: one for name, one in found.items() if language in one.languages}


def commonest_caption(photos: Sequence[Photo], language: str) -> str:
    """The caption that is written most often, case and punctuation aside."""
    lines = tokenised([text for photo in photos for text in photo.texts()], language)
    return Counter(lines).most_common(1)[0][0]


def captions_of(captioner: capsmith.Captioner, splits: Splits) -> list[str]:
    """The captioner's own captions of the photos to caption."""
    pictures = (photo.source.picture() for photo in splits.val)
    made = captioner.iter_captions(pictures, language=splits.language)
    return [caption.text for caption in made]


def score_all(names: Sequence[str], splits: Splits, store: Path) -> Iterator[tuple[str, Report]]:
    """Scores of the baselines and of each captioner, as they are made."""
    captioners = load_all(names, splits.language)

    def scored(captions: Sequence[str]) -> Report:
        references = [photo.texts() for photo in splits.val]
        return report(captions, references, language=splits.language)

    yield COMMONEST, scored([commonest_caption(splits.train, splits.language)] * len(splits.val))
    nearest = nearest_photos(capsmith.load(), splits.val, splits.train, store)
    yield NEAREST, scored([photo.texts()[0] for photo in nearest])
    for name, captioner in captioners.items():
        yield name, scored(captions_of(captioner, splits))


def table(reports: Mapping[str, Report]) -> str:
    """Markdown: a row for each system."""
    neighbour = reports[NEAREST].cider.value
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    for name, scores in reports.items():
        ratio = f"{scores.cider.value / neighbour:.2f}" if neighbour else "-"
        cells = [name, scores.cider, scores.bleu[3], scores.rouge_l]
        cells += [f"{scores.distinct_share:.0%}", f"{scores.mean_words:.1f}", ratio]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def copy_curves(names: Sequence[str], images: Path) -> Iterator[str]:
    """Copy the curves of runs that have them; Markdown that shows each."""
    for name in names:
        source = Path(name) / "curves.png"
        if source.is_file():
            title = load(name).bundle.name
            images.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(images / f"curves-{title}.png", source.read_bytes())
            yield f"\n![Loss, learning rate and CIDEr of {title}](../images/curves-{title}.png)\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("captioners", nargs="*", metavar="RUN_OR_BUNDLE")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/flickr8k"))
    parser.add_argument("--store", type=Path, metavar="FOLDER")
    parser.add_argument("--lang", default="en", metavar="LANGUAGE")
    parser.add_argument("--limit", type=int, help="only so many photos of each split, for a try")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="PAGE.md")
    return parser.parse_args()


def main() -> int:
    """Run the command line."""
    options = _arguments()

    def work() -> None:
        splits = read_splits(options.data, options.lang, options.limit)
        reports: dict[str, Report] = {}
        with tempfile.TemporaryDirectory() as temporary:
            store = options.store or Path(temporary)
            for name, scores in score_all(options.captioners, splits, store):
                reports[name] = scores
                sys.stderr.write(f"{name}: CIDEr-D {scores.cider}\n")
        text = table(reports)
        print(text, end="")
        note = (
            f"\n{len(splits.val):,} photos are captioned; the baselines know"
            f" {len(splits.train):,} others.\n"
        )
        curves = copy_curves(options.captioners, options.out.parent.parent / "images")
        put_between(options.out, text + note + "".join(curves), options.lang)

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
