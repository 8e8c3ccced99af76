from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from capsmith.data.predictions import read_judgements, read_predictions
from capsmith.errors import DataError

EXPECTED = [("dog.jpg", "a dog, running"), ("cat.jpg", "a cat")]

COCO = """[{"image_id": "dog.jpg", "caption": "a dog, running", "id": 7},
           {"image_id": "cat.jpg", "caption": "a  cat\\n"}]"""
LINES = """{"path": "dog.jpg", "text": "a dog, running", "logprob": -1.5, "tokens": []}

{"path": "cat.jpg", "text": "a cat"}
"""
CSV = 'image,caption\ndog.jpg,"a dog, running"\ncat.jpg,a cat\n'
UNQUOTED = "\ufeffimage,caption\r\ndog.jpg,a dog, running\r\ncat.jpg,a cat\r\n"
OTHER_ORDER = 'caption;score;file_name\n"a dog, running";1;dog.jpg\na cat;2;cat.jpg\n'
TSV = "photo\tcaption\ndog.jpg\ta dog, running\ncat.jpg\ta cat\n"
PRINTED = "dog.jpg\ta dog, running\t-3.2\t-0.4\ncat.jpg\ta cat\t-1.0\t-0.1\n"


@pytest.mark.parametrize("content", [COCO, LINES, CSV, UNQUOTED, OTHER_ORDER, TSV, PRINTED])
def test_every_format(content, tmp_path):
    path = tmp_path / "predictions"
    path.write_bytes(content.encode())
    found = [(p.photo, p.caption) for p in read_predictions(path).captions]
    assert found == EXPECTED
    path.write_bytes(gzip.compress(content.encode()))
    assert [(p.photo, p.caption) for p in read_predictions(path).captions] == EXPECTED


def test_coco_numbers_and_places(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 42, "caption": ""}]')
    (prediction,) = read_predictions(path).captions
    assert (prediction.photo, prediction.caption) == ("42", "")
    assert str(prediction.place) == f"{path}: [0]"


def test_photos_that_failed_are_told_apart_from_empty_captions(tmp_path):
    path = tmp_path / "out.jsonl"
    error = {"path": "broken.jpg", "error": {"code": "image", "message": "broken"}}
    lines = [error, {"path": "dog.jpg", "text": ""}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_predictions(path)
    assert found.failed == ("broken.jpg",)
    assert [p.caption for p in found.captions] == [""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; make it again"),
        (b" \n\n", "is empty; make it again"),
        (b"[]", "is an empty list"),
        (b"[1]", r"\[0\]: is 1, not an object"),
        (b'[{"image_id": 1, "caption": "a"}', ":1: is not JSON"),
        (b"\xff\xfe[\x00", "UTF-16"),
        ("image,caption\nd.jpg,caf\xe9".encode("latin-1"), ":2: byte 10 of the line is not UTF-8"),
        (b'{"photo": "a"}\n{"photo"\n', ":1: no field is known to be the caption"),
        (b'{"photo": "a", "caption": "x"}\n{"photo"\n', ":2: is not a JSON object"),
        (b'[{"image_id": NaN, "caption": "x"}]', "image_id is nan, not the name of a photo"),
        (b'[{"image_id": true, "caption": "x"}]', "image_id is True, not the name of a photo"),
        (b'[{"image_id": 1, "caption": NaN}]', "caption is nan, not text"),
        (b'[{"image_id": 1, "caption": ["a", "b"]}]', "not text"),
        (b'[{"nr": 1, "caption": "x"}]', r"no field is known to be the photo \(there are: 'nr'"),
        (b"image,caption\na.jpg\n", ":2: has 1 columns where the header has 2"),
        (b"no header and no tab\n", ":1: is neither a header"),
        (b"image,caption\n", "holds no captions"),
    ],
)
def test_bad_files_are_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_predictions(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        read_predictions(tmp_path / "absent")
    if Path("/dev/zero").exists():
        with pytest.raises(DataError, match="is no plain file"):
            read_predictions(Path("/dev/zero"))


@pytest.mark.slow
def test_a_file_that_unfolds_to_too_much_is_refused(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(1025):
            file.write(bytes(1 << 20))
    with pytest.raises(DataError, match="is over 1 GB"):
        read_predictions(path)


def test_judgements_with_and_without_captions(tmp_path):
    path = tmp_path / "judged.csv"
    path.write_text('photo,candidate,score\ndog.jpg,"a dog, running",3\ncat.jpg,a cat,1.5\n')
    found = read_judgements(path)
    assert [(j.photo, j.caption, j.score) for j in found] == [
        ("dog.jpg", "a dog, running", 3),
        ("cat.jpg", "a cat", 1.5),
    ]
    path.write_text('{"photo": "dog.jpg", "rating": 4}\n')
    assert read_judgements(path)[0].caption is None


@pytest.mark.parametrize("score", ["nan", "inf", "good", "", "1e999"])
def test_judgements_that_are_no_numbers_are_refused(score, tmp_path):
    path = tmp_path / "judged.csv"
    path.write_text(f"photo,caption,score\ndog.jpg,a dog,1\ncat.jpg,a cat,{score}\n")
    with pytest.raises(DataError, match=r":3: score is .*, not a finite number"):
        read_judgements(path)
