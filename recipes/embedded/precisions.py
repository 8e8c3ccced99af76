"""What 8 and 4 bits cost: scores of a run's captioner in each, and how often captions agree.

    python recipes/embedded/precisions.py RUN DATA [--blend 0.5] [--out FILE.md]

float32 is exact in every graph. In the others the encoder is stored in 16 bits and the mapper in
8, widened at load, and the decoder's products read 8- or 4-bit weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import capsmith
import photos
from build import read_settings
from capsmith.atomic import write_bytes
from capsmith.export.quantize import Precision
from export import HERE, description, trained, write
from measure import Captions, caption_set, score

_HEADING = """# Precisions of the embedded captioner

CIDEr with the bundle's own decoding and 95 % intervals; "same" is the share of captions that are
letter for letter those of float32. int8 ships.

"""
_PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "int4")


def table(captions: dict[Precision, dict[str, Captions]], sizes: dict[str, int], data: Path) -> str:
    """Markdown: a row for each precision."""
    lines = ["| precision | bytes |" + "".join(f" {name} | same |" for name in photos.VALIDATION)]
    lines.append("|" + " --- |" * (2 + 2 * len(photos.VALIDATION)))
    exact = captions["float32"]
    for precision, sets in captions.items():
        cells = [precision, f"{sizes[precision]:,}"]
        for name, made in sets.items():
            same = sum(text == exact[name][photo] for photo, text in made.items())
            cells += [str(score(data, name, made).cider), f"{same / len(made):.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--blend", type=float, default=0.5)
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    options = parser.parse_args()
    settings = read_settings(HERE / "settings.yaml", [])
    vocabulary = json.loads((options.run / "vocabulary.json").read_text())
    model = trained(options.run, settings, vocabulary, options.blend)
    captions: dict[Precision, dict[str, Captions]] = {}
    sizes: dict[str, int] = {}
    for precision in _PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / precision
            facts = description(
                "embedded-en", "0", vocabulary, settings, model.encoder.preprocessing,
                precision=precision,
            )  # fmt: skip
            write(model, facts, vocabulary, bundle)
            sizes[precision] = sum(file.stat().st_size for file in bundle.iterdir())
            captioner = capsmith.load(bundle)
            captions[precision] = {
                name: caption_set(captioner, options.data, name) for name in photos.VALIDATION
            }
    text = table(captions, sizes, options.data)
    print(text, end="")
    if options.out is not None:
        write_bytes(options.out, (_HEADING + text).encode())


if __name__ == "__main__":
    main()
