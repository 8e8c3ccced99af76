"""Score a captioner by every metric: on photos it has never seen, and on those it was trained on.

    python scripts/every_metric.py [BUNDLE] [--data ../shared/data] [--out PAGE.md]

Three sets: Flickr8k's official validation photos, the 186 COCO photos of the data folder, and as
many photos of Flickr8k's training split as the first has, drawn at random. Each goes through
`capsmith eval --metrics all`, which leaves out METEOR and SPICE where Java is missing. The table is
printed, and put between the markers "en" of --out.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from page import exit_status, put_between
from results import read_splits

from capsmith.errors import DataError

SEEN = "Flickr8k train (own)"
Evaluation = Mapping[str, Any]


def evaluate(
    bundle: str | None, references: Path, photos: Path | None, options: argparse.Namespace
) -> Evaluation:
    """What `capsmith eval --json` finds of captions of these photos, or of all."""
    command = [sys.executable, "-m", "capsmith", "eval", "--data", str(references), "--json"]
    command += ["--metrics", options.metrics]
    command += ["--model", bundle] if bundle else []
    command += ["--split", f"test={photos}"] if photos else []
    command += ["--threads", str(options.threads)] if options.threads else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise DataError(f"{references}: capsmith eval ended with status {done.returncode}")
    found: Evaluation = json.loads(done.stdout)
    return found


def sets(data: Path, limit: int | None, folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """By name: the captions by people, and a list of the photos meant, written into `folder`."""
    splits = read_splits(data / "flickr8k", "en", None)
    unseen = [photo.id for photo in splits.val][:limit]
    seen = random.Random(0).sample([photo.id for photo in splits.train], len(unseen))
    found: dict[str, tuple[Path, Path | None]] = {}
    for name, photos in (("Flickr8k val", unseen), (SEEN, seen)):
        path = folder / f"{len(found)}.txt"
        path.write_text("\n".join(photos) + "\n", "utf-8")
        found[name] = (data / "flickr8k" / "captions.txt", path)
    return found | {"COCO": (data / "coco" / "captions.json", None)}


def table(evaluations: Mapping[str, Evaluation]) -> str:
    """Markdown: a row for each metric, a column for each set."""
    heads = [f"{name} ({found['photos']:,})" for name, found in evaluations.items()]
    lines = [f"| metric | {' | '.join(heads)} |", f"|{' --- |' * (len(heads) + 1)}"]
    names = {name: None for found in evaluations.values() for name in found["metrics"]}
    for name in names:
        cells = [_interval(found["metrics"].get(name)) for found in evaluations.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for key, title in (("mean_words", "words a caption"), ("identical_share", "said twice")):
        shown = [f"{found['diversity'][key]:.2f}" for found in evaluations.values()]
        lines.append(f"| {title} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _interval(found: Mapping[str, float] | None) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" if found else "-"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--metrics", default="all", help="as for capsmith eval")
    parser.add_argument("--limit", type=int, help="only so many of Flickr8k's photos, for a try")
    parser.add_argument("--out", type=Path, metavar="PAGE.md")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            chosen = sets(options.data, options.limit, Path(folder))
            found = {
                name: evaluate(options.bundle, references, photos, options)
                for name, (references, photos) in chosen.items()
            }
        text = table(found)
        print(text, end="")
        if options.out is not None:
            put_between(options.out, text, "en")

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
