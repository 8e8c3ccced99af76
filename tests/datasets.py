"""Small data sets, written in the exact formats that are published."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"


def photo_bytes(seed: int = 0, size: tuple[int, int] = (48, 32)) -> bytes:
    """A JPEG with large coloured patches, another one for each seed."""
    palette = [(seed * 37 + shift * 91) % 256 for shift in range(3)]
    patches = Image.new("RGB", size, (palette[0], palette[1], palette[2]))
    for number in range(12):
        value = (seed * 7919 + number * 104_729) ** 2 % 997 % 256
        box = (number % 4 * size[0] // 4, number // 4 * size[1] // 3)
        patches.paste(
            (value, (value * 3) % 256, (value * 7) % 256), (*box, box[0] + 12, box[1] + 11)
        )
    content = io.BytesIO()
    patches.save(content, "JPEG", quality=90)
    return content.getvalue()


def write_photos(folder: Path, names: Iterable[str]) -> None:
    """Write a photo of each name, which may have folders in it."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo_bytes(seed))


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    """Write an uncompressed tar with the members in their order."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def made_up_rows(photos: int) -> tuple[list[str], list[str]]:
    """Photos and captions, three each, which share rare words with those of the same photo."""
    draw = random.Random(0)
    names, texts = [], []
    for photo in range(photos):
        topic = [f"thing{draw.randrange(400)}" for _ in range(4)]
        for _ in range(3):
            words = [*draw.sample(topic, 2), f"word{draw.randrange(2000)}", "a", "on", "the"]
            draw.shuffle(words)
            names.append(f"{photo}.jpg")
            texts.append(" ".join(words))
    return names, texts
