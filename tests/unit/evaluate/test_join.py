from __future__ import annotations

import pytest

from capsmith.errors import DataError
from capsmith.evaluate.join import PhotoNames


@pytest.mark.parametrize(
    ("photos", "name", "expected"),
    [
        (["dog.jpg", "cat.jpg"], "dog.jpg", "dog.jpg"),
        (["dog.jpg", "cat.jpg"], "photos/of/dog.jpg", "dog.jpg"),
        (["dog.jpg", "cat.jpg"], r"C:\photos\dog.jpg", "dog.jpg"),
        (["dog.jpg", "cat.jpg"], "dog", "dog.jpg"),
        (["dog", "cat"], "dog.png", "dog"),
        (["a/dog.jpg", "b/dog.jpg"], "x/b/dog.jpg", "b/dog.jpg"),
        (["val2014/COCO_val2014_000000000042.jpg"], "42", "val2014/COCO_val2014_000000000042.jpg"),
        (["000000000042.jpg", "000000000421.jpg"], "42", "000000000042.jpg"),
        (["000000000042.webp"], "COCO_train2014_000000000042.jpg", "000000000042.webp"),
        (["1.jpg", "01.jpg"], "01", "01.jpg"),
        (["mr. smith.jpg"], "mr. smith", "mr. smith.jpg"),
        (["dog.jpg"], "dog2.jpg", None),
        (["dog.jpg"], "", None),
    ],
)
def test_names(photos, name, expected):
    assert PhotoNames(photos).find(name, "p.json:3") == expected


def test_an_alias_comes_before_a_name_that_is_alike():
    names = PhotoNames(["2.jpg", "dog.jpg"], {"2": "dog.jpg"})
    assert names.find("2", "here") == "dog.jpg"
    assert names.find("2.jpg", "here") == "2.jpg"


def test_a_name_of_several_photos_is_refused_with_both():
    names = PhotoNames(["a/dog.jpg", "b/dog.jpg"])
    with pytest.raises(DataError, match=r"p.json:3: dog may be a/dog.jpg or b/dog.jpg"):
        names.find("dog", "p.json:3")
