"""Re-encode the photos of examples/ from the wheels of scikit-image and scikit-learn.

    python scripts/make_examples.py [--into examples]

Writes small JPEGs without metadata, and README.md with source, author and licence of each.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

LONG_SIDE = 512
JPEG_QUALITY = 85
CC_BY = "[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/)"
CC0 = "[CC0](https://creativecommons.org/publicdomain/zero/1.0/)"


@dataclass(frozen=True)
class Photo:
    """One photo: the file written, and where it comes from."""

    name: str
    package: str
    path: str
    author: str
    licence: str
    origin: str


SKIMAGE_ORIGIN = "[scikit-image](https://scikit-image.org/docs/stable/api/skimage.data.html)"
PHOTOS = (
    Photo(
        "astronaut.jpg",
        "skimage",
        "data/astronaut.png",
        "NASA",
        "public domain",
        "[NASA Great Images](https://flic.kr/p/r9qvLn)",
    ),
    Photo("cat.jpg", "skimage", "data/chelsea.png", "Stefan van der Walt", CC0, SKIMAGE_ORIGIN),
    Photo("coffee.jpg", "skimage", "data/coffee.png", "Rachel Michetti", CC0, SKIMAGE_ORIGIN),
    Photo(
        "flower.jpg",
        "sklearn",
        "datasets/images/flower.jpg",
        "[vultilion](https://www.flickr.com/photos/vultilion/)",
        CC_BY,
        "[Flickr](https://www.flickr.com/photos/vultilion/6056698931/)",
    ),
    Photo("photographer.jpg", "skimage", "data/camera.png", "Lav Varshney", CC0, SKIMAGE_ORIGIN),
    Photo(
        "rocket.jpg",
        "skimage",
        "data/rocket.jpg",
        "SpaceX",
        "public domain",
        "[Flickr](https://www.flickr.com/photos/spacexphotos/16511594820/)",
    ),
    Photo(
        "temple.jpg",
        "sklearn",
        "datasets/images/china.jpg",
        "[danielbuechele](https://www.flickr.com/photos/danielbuechele/)",
        CC_BY,
        "[Flickr](https://www.flickr.com/photos/danielbuechele/6061409035/)",
    ),
)


def package_folder(name: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed; try: pip install scikit-image scikit-learn")
    return Path(spec.origin).parent


def reencode(source: Path, target: Path) -> None:
    """Scale the long side down to LONG_SIDE and save as JPEG without metadata."""
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    picture.save(target, quality=JPEG_QUALITY, optimize=True)


def credits_page() -> str:
    """The table of sources as Markdown."""
    rows = [
        f"| {p.name} | `{p.package}/{p.path}` | {p.author} | {p.licence} | {p.origin} |"
        for p in PHOTOS
    ]
    return "\n".join(
        [
            "# Example photos",
            "",
            "Scaled down and re-encoded by `scripts/make_examples.py` from the photos that the",
            "scikit-image and scikit-learn wheels carry; nothing else was changed.",
            "",
            "| file | taken from | author | licence | origin |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Write all photos and the credits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path(__file__).parents[1] / "examples")
    folder = parser.parse_args().into
    folder.mkdir(parents=True, exist_ok=True)
    for photo in PHOTOS:
        reencode(package_folder(photo.package) / photo.path, folder / photo.name)
    (folder / "README.md").write_text(credits_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
