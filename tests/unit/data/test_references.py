from __future__ import annotations

import json
from pathlib import Path

import pytest

from capsmith.data.references import find_pictures, read_references
from capsmith.data.sources import DataSource
from capsmith.errors import DataError
from tests.datasets import SHARED, write_photos


def source(path: Path, **options: object) -> list[DataSource]:
    return [DataSource(path=str(path), **options)]


def test_captions_are_read_without_their_photos(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("image,caption\na.jpg,one , two\nb.jpg,three\na.jpg,four\n")
    found = read_references(source(path), base=Path())
    assert [(p.id, p.captions) for p in found.photos] == [
        ("a.jpg", ("one , two", "four")),
        ("b.jpg", ("three",)),
    ]
    assert found.language == "en"


def test_splits_of_lists_and_of_columns(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("image,caption,split\na.jpg,one,test\nb.jpg,two,train\n")
    assert [p.id for p in read_references(source(path), base=Path(), split="test").photos] == [
        "a.jpg"
    ]
    (tmp_path / "dev.txt").write_text("b\n")
    path.write_text("image,caption\na.jpg,one\nb.jpg,two\n")
    found = read_references(source(path), base=Path(), split="val")
    assert [p.id for p in found.photos] == ["b.jpg"]
    with pytest.raises(
        DataError, match=r"no captions in split test \(captions by split: none 1, v"
    ):
        read_references(source(path), base=Path(), split="test")
    with pytest.raises(DataError, match="there is no split 'tset'"):
        read_references(source(path), base=Path(), split="tset")


def test_a_photo_in_two_splits_is_refused(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("image,caption,split\na.jpg,one,test\n")
    (tmp_path / "train.txt").write_text("a.jpg\n")
    with pytest.raises(DataError, match=r"a.jpg is in test and in train"):
        read_references(source(path), base=Path(), split="test")


def test_one_language_is_scored(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("image,caption,language\na.jpg,one,en\na.jpg,eins,de\nb.jpg,zwei,de\n")
    found = read_references(source(path), base=Path(), language="de")
    assert [(p.id, p.captions) for p in found.photos] == [
        ("a.jpg", ("eins",)),
        ("b.jpg", ("zwei",)),
    ]
    with pytest.raises(DataError, match="has captions in de, en; choose one with --lang"):
        read_references(source(path), base=Path())
    with pytest.raises(DataError, match="has no captions in 'fr'; it has: de, en"):
        read_references(source(path), base=Path(), language="fr")


def test_coco_photos_go_by_their_numbers_too(tmp_path):
    path = tmp_path / "captions.json"
    images = [{"id": 7, "file_name": "dog.jpg"}, {"id": 8, "file_name": "cat.jpg"}]
    path.write_text(
        json.dumps({"images": images, "annotations": [{"image_id": 7, "caption": "a dog"}]})
    )
    assert read_references(source(path), base=Path()).aliases == {"7": "dog.jpg"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,caption\na.jpg,\n", ":2: the caption of a.jpg is empty"),
        (b"image,caption\na.jpg,\xe9\n", "is not UTF-8"),
        (b"", "no format that is known"),
        (b"image,caption\n", "holds no captions"),
    ],
)
def test_bad_files_are_refused(content, message, tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_references(source(path), base=Path())


def test_pictures_are_found_near_the_captions_or_not_at_all(tmp_path):
    path = tmp_path / "text" / "captions.txt"
    path.parent.mkdir()
    path.write_text("image,caption\na.jpg,one\nb.jpg,two\n")
    photos = read_references(source(path), base=Path()).photos
    assert find_pictures(photos, source(path), Path()) == [None, None]
    write_photos(tmp_path, ["a.jpg"])
    found = find_pictures(photos, source(path), Path())
    assert [place and place.path.name for place in found] == ["a.jpg", None]


def test_real_references_of_every_kind():
    folder = SHARED / "flickr8k"
    if not folder.is_dir():
        pytest.skip(f"no captions at {folder}")
    val = read_references(source(folder / "captions.txt"), base=Path(), split="val")
    assert len(val.photos) == 1000
    assert all(len(photo.captions) == 5 for photo in val.photos)
    german = read_references(source(folder / "captions.de.csv"), base=Path(), language="de")
    assert len(german.photos) == 6549
    chinese = read_references(source(folder / "flickr8kzhc.caption.txt"), base=Path(), split="val")
    assert (len(chinese.photos), chinese.language) == (1000, "zh")
    coco = read_references(source(SHARED / "coco" / "captions.json"), base=Path())
    assert len(coco.photos) == len(coco.aliases) == 186
