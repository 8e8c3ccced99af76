"""What 8 and 4 bits cost: scores of one captioner in each, and how often captions agree.

    for bits in 32 8 4; do capsmith export RUN bundle-$bits --bits $bits; done
    python recipes/embedded/precisions.py bundle-32 bundle-8 bundle-4 DATA [--out FILE.md]

float32 is exact in every graph. In the others the encoder is stored in 16 bits and the mapper in
8, widened at load, and the decoder's products read 8- or 4-bit weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import capsmith
import photos
from capsmith.atomic import write_bytes
from capsmith.export.quantize import Precision
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
    parser.add_argument("bundles", type=Path, nargs=len(_PRECISIONS), metavar="BUNDLE")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    options = parser.parse_args()
    captions: dict[Precision, dict[str, Captions]] = {}
    sizes: dict[str, int] = {}
    for precision, bundle in zip(_PRECISIONS, options.bundles, strict=True):
        captioner = capsmith.load(bundle)
        sizes[precision] = captioner.bundle.size_bytes
        captions[precision] = {
            name: caption_set(captioner, options.data, name) for name in photos.VALIDATION
        }
    text = table(captions, sizes, options.data)
    print(text, end="")
    if options.out is not None:
        write_bytes(options.out, (_HEADING + text).encode())


if __name__ == "__main__":
    main()
