"""Scoring 5,000 captions against 25,000 references: seconds, and beside pycocoevalcap's."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from capsmith.data.references import read_references
from capsmith.data.sources import DataSource
from capsmith.evaluate.lexical import bleu, cider_d, rouge_l
from capsmith.evaluate.tokenize import ptb_lines

PHOTOS = 5000
REFERENCES_EACH = 5
MOST_SECONDS = 10.0


def run(captions: Path, *, repeats: int) -> None:
    """Print every line. `captions`: a data set of at least 5,000 photos with 5 captions each."""
    read = read_references([DataSource(path=str(captions))], base=Path())
    photos = [photo.captions[:REFERENCES_EACH] for photo in read.photos][:PHOTOS]
    # Each photo gets its neighbour's first caption: as long as a captioner's, and as varied.
    candidates = [group[0] for group in (*photos[1:], photos[0])]
    own = _best(lambda: _cider(candidates, photos), repeats)
    sentences = sum(map(len, photos))
    passed = "passed" if own <= MOST_SECONDS else "MISSED"
    print(f"\n{len(photos)} captions against {sentences} references, seconds of one core")
    print(f"  tokens, document frequencies, CIDEr {own:8.2f} (bar {MOST_SECONDS:g}: {passed})")
    tokens, references = _tokenised(candidates, photos)
    for name, metric in (("CIDEr", cider_d), ("BLEU", bleu), ("ROUGE-L", rouge_l)):
        print(f"  {name:35} {_best(lambda m=metric: m(tokens, references), repeats):8.2f}")
    if importlib.util.find_spec("pycocoevalcap") is None:
        print("  pycocoevalcap is not installed: pip install --no-deps pycocoevalcap")
        return
    _against_pycocoevalcap(tokens, references, repeats)


def _against_pycocoevalcap(
    tokens: Sequence[str], references: Sequence[Sequence[str]], repeats: int
) -> None:
    """The same tokens, so that neither side pays for Java."""
    from pycocoevalcap.cider.cider import Cider

    given = {row: list(group) for row, group in enumerate(references)}
    made = {row: [line] for row, line in enumerate(tokens)}
    theirs = _best(lambda: Cider().compute_score(given, made), repeats)
    ours = _best(lambda: cider_d(tokens, references), repeats)
    print(f"  CIDEr by pycocoevalcap              {theirs:8.2f} ({theirs / ours:.1f}x of ours)")
    apart = abs(Cider().compute_score(given, made)[0] - cider_d(tokens, references).mean)
    if apart > 1e-6:
        raise SystemExit(f"CIDEr differs from pycocoevalcap's by {apart:.2g}")


def _cider(candidates: Sequence[str], photos: Sequence[Sequence[str]]) -> Any:
    return cider_d(*_tokenised(candidates, photos))


def _tokenised(
    candidates: Sequence[str], photos: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    lines = iter(ptb_lines([text for group in photos for text in group]))
    return ptb_lines(candidates), [[next(lines) for _ in group] for group in photos]


def _best(work: Callable[[], object], repeats: int) -> float:
    """Seconds of processor time, the least of the repeats: other programs make it longer only."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)
