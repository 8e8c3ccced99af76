"""python -m benchmarks [decoder] [captioner] [--photos FILE]: the tables of README.md."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import captioner, decoder
from benchmarks.machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", default=[], metavar="decoder|captioner")
    parser.add_argument("--photos", type=Path, help="tar or folder of photos for the folder lines")
    parser.add_argument("--model", help="bundle instead of the embedded one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="keep graphs and photos here (about 800 MB)")
    options = parser.parse_args()
    parts = options.parts or ["decoder", "captioner"]
    if not set(parts) <= {"decoder", "captioner"}:
        parser.error(f"no such part: {' '.join(parts)}")
    print(describe(options.threads))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if "decoder" in parts:
            decoder.run(folder, threads=options.threads, repeats=options.repeats)
        if "captioner" in parts:
            captioner.run(
                folder,
                photos=options.photos,
                model=options.model,
                threads=options.threads,
                repeats=options.repeats,
            )


if __name__ == "__main__":
    main()
