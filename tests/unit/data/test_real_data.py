"""Real data sets, as published: every photo and caption that their description counts is read."""

from __future__ import annotations

from collections import Counter

import pytest

from capsmith.data.sources import DataSource, read_data
from capsmith.runtime.pictures import open_picture
from tests.datasets import SHARED

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the public data sets are not beside this tree"
)

FLICKR8K = {"train": 6000, "val": 1000, "": 91}
MULTI30K = {"train": 5528, "val": 934, "": 87}


@pytest.mark.parametrize(
    ("path", "language", "captions", "splits"),
    [
        ("flickr8k/captions.txt", "en", 35_455, FLICKR8K),
        ("flickr8k/flickr8kzhc.caption.txt", "zh", 35_455, FLICKR8K),
        ("flickr8k/captions.de.csv", "de", 32_745, MULTI30K),
        ("flickr8k/captions.fr.csv", "fr", 6_549, MULTI30K),
        ("flickr8k/captions.cs.csv", "cs", 6_549, MULTI30K),
        ("coco/captions.json", "en", 930, {"": 186}),
        ("coco/train_captions.json", "en", 14_496, {"": 2_898}),
        ("coco/one_caption.csv", "en", 1_944, {"": 1_944}),
        ("pascal", "en", 40_000, {"": 800}),
    ],
)
def test_every_photo_and_caption_is_read(
    path: str, language: str, captions: int, splits: dict[str, int]
) -> None:
    source = DataSource(path=path, language="" if language == "zh" else language)
    manifest = read_data([source], base=SHARED)
    assert Counter(photo.split for photo in manifest.photos) == splits
    assert sum(len(photo.texts(language)) for photo in manifest.photos) == captions
    for photo in manifest.photos[:: len(manifest.photos) // 5]:
        assert open_picture(photo.source.picture()).size != (0, 0)


def test_a_mixture_of_languages_and_of_text_without_photos() -> None:
    sources = [
        DataSource(path="flickr8k/captions.de.csv", language="de"),
        DataSource(path="flickr8k/captions.fr.csv", language="fr"),
        DataSource(path="text/coco-val2017.en.txt.xz", format="text"),
    ]
    manifest = read_data(sources, base=SHARED)
    assert manifest.languages == ("de", "en", "fr")
    assert len(manifest.photos) == 6_549
    assert all(len(p.texts("de")) == 5 and len(p.texts("fr")) == 1 for p in manifest.photos)
    assert len(manifest.texts) == 22_998
