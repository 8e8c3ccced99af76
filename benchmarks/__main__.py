"""python -m benchmarks [PART ...] [--photos FILE] [--captions FILE]: the tables of README.md."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import captioner, decoder, features, metrics, training
from benchmarks.machine import describe
from capsmith.errors import CapsmithError

PARTS = ("decoder", "captioner", "training", "metrics")
FLICKR8K = Path("../shared/data/flickr8k/captions.txt")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", default=[], metavar="|".join(PARTS))
    parser.add_argument("--photos", type=Path, help="tar or folder of photos for the folder lines")
    parser.add_argument(
        "--captions", type=Path, default=FLICKR8K, help="data set for training and metrics"
    )
    parser.add_argument("--model", help="bundle instead of the embedded one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5, help="training steps of each side")
    parser.add_argument("--folder", type=Path, help="keep graphs and photos here (about 800 MB)")
    options = parser.parse_args()
    parts = options.parts or PARTS
    if not set(parts) <= set(PARTS):
        parser.error(f"no such part: {' '.join(parts)}")
    print(describe(options.threads))
    try:
        _run(parts, options)
    except CapsmithError as error:
        raise SystemExit(str(error)) from None


def _run(parts: Sequence[str], options: argparse.Namespace) -> None:
    threads, repeats = options.threads, options.repeats
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if "decoder" in parts:
            decoder.run(folder, threads=threads, repeats=repeats)
        if "captioner" in parts:
            captioner.run(
                folder, photos=options.photos, model=options.model, threads=threads,
                repeats=repeats,
            )  # fmt: skip
    if "training" in parts:
        training.run(options.captions, threads=threads, steps=options.steps)
        features.run(options.captions, threads=threads, repeats=repeats)
    if "metrics" in parts:
        metrics.run(options.captions, repeats=min(repeats, 3))


if __name__ == "__main__":
    main()
