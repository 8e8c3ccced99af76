"""`capsmith data check`: everything that is planted in a data set is found, and mended."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capsmith.data.check import Checked, check
from capsmith.data.duplicates import near_pairs, photo_hash
from capsmith.data.sources import DataSource, read_data
from tests.datasets import made_up_rows, photo_bytes, write_photos
from tests.integration.command import capsmith
from tests.photos import PHOTOS, encoded, photo


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Six photos of which one is no photo, one is missing, and one is in both splits."""
    write_photos(tmp_path / "Images", ["a.jpg", "b.jpg", "c.jpg", "e.jpg"])
    (tmp_path / "Images" / "d.jpg").write_bytes(b"not a photo")
    again = Image.open(io.BytesIO(photo_bytes(1))).resize((90, 60))
    again.save(tmp_path / "Images" / "b2.jpg", quality=60)
    lines = [
        "image,caption",
        "a.jpg,A dog runs on the beach .",
        "a.jpg,",
        "a.jpg,A small dog runs .",
        "b.jpg,A girl sings .",
        "b2.jpg,A girl sings loudly .",
        "c.jpg",
        "c.jpg," + "word " * 101,
        "c.jpg,FranzÃ¶sische Bulldogge .",
        "d.jpg,A cat sleeps .",
        "gone.jpg,A cat sleeps .",
        "e.jpg,Two men .",
    ]
    text = "\n".join(lines).encode()
    text += b"\nc.jpg,Ein M\xe4dchen .\n" + "c.jpg,Ein M\ufffddchen .\n".encode()
    (tmp_path / "captions.txt").write_bytes(text)
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\nc.jpg\ne.jpg\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("b2.jpg\ne.jpg\n")
    (tmp_path / "more.txt").write_text("Two men .\nA girl sings, loudly!\n")
    return tmp_path


EXPECTED = [
    "captions.txt:3: empty: the caption of a.jpg is empty",
    "captions.txt:5: duplicate: b.jpg (train) is nearly the same photo as b2.jpg (val,",
    "captions.txt:7: row: has 1 columns where the header has 2",
    "captions.txt:8: long: has 101 words, more than 100",
    "captions.txt:9: encoding: UTF-8 that was read as Windows-1252: 'FranzÃ¶sische Bulldogge .' is",
    "captions.txt:10: unreadable: ",
    "captions.txt:11: missing: there is no photo gone.jpg",
    "captions.txt:13: encoding: byte 12 of the line is not UTF-8",
    "captions.txt:14: encoding: has the character U+FFFD, which no caption has",
    "more.txt:2: leak: is a caption of b2.jpg, which is held out for val (",
]


def test_the_command_tells_all_by_file_and_line_and_mends_it(broken: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = [
        "data",
        "check",
        broken / "captions.txt",
        "--text",
        broken / "more.txt",
    ]
    done = capsmith(*arguments)
    assert done.status == 1
    *findings, counts, summary = done.lines
    crossing = [line for line in findings if ": split: " in line]
    assert len(crossing) == 1
    assert "photo e.jpg is in val and in train" in crossing[0]
    assert "splits are by image" in crossing[0]
    others = [line.replace(f"{broken}/", "") for line in findings if ": split: " not in line]
    assert len(others) == len(EXPECTED)
    for line, expected in zip(others, EXPECTED, strict=True):
        assert line.startswith(expected)
    assert counts == (
        "5 photos (no split 1, train 3, val 1), 9 captions (en 9), 2 texts without photos"
    )
    assert summary.startswith("11 findings: 3 encoding")

    clean = tmp_path / "clean" / "data.jsonl"
    done = capsmith(*arguments, "--fix", clean)
    assert done.status == 0
    assert done.lines[-1] == (
        f"{clean}: 3 photos (train 2, val 1), 5 captions (en 5), 1 texts without photos"
    )
    again = capsmith("data", "check", clean)
    assert (again.status, again.complaints) == (0, [])
    manifest = read_data([DataSource(path=str(clean))])
    assert {photo.id: photo.texts() for photo in manifest.photos} == {
        "a.jpg": ("A dog runs on the beach .", "A small dog runs ."),
        "b2.jpg": ("A girl sings loudly .",),
        "c.jpg": ("Französische Bulldogge .", "Ein Mädchen ."),
    }
    assert [line.text for line in manifest.texts] == ["Two men ."]


def checked(folder: Path, **options: object) -> Checked:
    return check([DataSource(path=str(folder / "captions.txt"))], **options)  # type: ignore[arg-type]


def test_photos_are_opened_unless_they_are_skipped(broken: Path) -> None:
    kinds = {finding.kind for finding in checked(broken, opens_photos=False).findings}
    assert kinds == {"empty", "row", "long", "encoding", "missing", "split"}
    assert not [f for f in checked(broken, max_words=101).findings if f.kind == "long"]


def test_shuffled_rows_are_found_and_left_out(tmp_path: Path) -> None:
    names, texts = made_up_rows(60)
    write_photos(tmp_path, dict.fromkeys(names))
    shuffled = texts[90:]  # the captions of the last 30 photos
    random.Random(1).shuffle(shuffled)
    rows = zip(names, [*texts[:90], *shuffled], strict=True)
    (tmp_path / "captions.txt").write_text(
        "image,caption\n" + "".join(f"{name},{text}\n" for name, text in rows)
    )
    made = checked(tmp_path, opens_photos=False)
    assert {finding.kind for finding in made.findings} == {"misaligned"}
    kept = {photo.id for photo in made.clean.photos}
    assert len(kept & set(names[:90])) >= 20
    assert len(kept & set(names[90:])) <= 5


def test_nothing_wrong_is_exit_0_and_nothing_left_writes_nothing(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.jpg"])
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,A dog .\n")
    done = capsmith("data", "check", tmp_path)
    assert (done.status, done.lines) == (0, ["1 photos (no split 1), 1 captions (en 1)"])
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    out = tmp_path / "out.jsonl"
    done = capsmith("data", "check", tmp_path, "--fix", out)
    assert done.status == 1
    assert done.complaints == [
        f"capsmith: {tmp_path}: nothing is left of it, so {out} was not written"
    ]
    assert not out.exists()
    captions = tmp_path / "captions.csv"
    done = capsmith("data", "check", captions, "--fix", captions)
    assert done.status == 2
    assert "would replace the data itself" in done.complaints[0]


def test_options_that_name_what_is_not_found(tmp_path: Path) -> None:
    write_photos(tmp_path / "pictures", ["a.jpg"])
    captions = tmp_path / "text" / "deep" / "bilder.tab"
    captions.parent.mkdir(parents=True)
    captions.write_text("bild\tsatz\na.jpg\tEin Hund .\n")
    (captions.parent / "list").write_text("a.jpg\n")
    done = capsmith(
        *("data", "check", captions, "--format", "csv", "--photos", tmp_path / "pictures"),
        *("--column", "photo=bild", "--column", "caption=satz", "--lang", "de"),
        *("--split", f"test={captions.parent / 'list'}"),
    )
    assert (done.status, done.lines) == (0, ["1 photos (test 1), 1 captions (de 1)"])
    mixture = tmp_path / "mixture.json"
    source = {"path": "text/deep/bilder.tab", "format": "csv", "photos": ["pictures"]}
    columns = {"photo": "bild", "caption": "satz"}
    mixture.write_text(json.dumps({"sources": [{**source, "columns": columns, "split": "val"}]}))
    done = capsmith("data", "check", mixture)
    assert (done.status, done.lines) == (0, ["1 photos (val 1), 1 captions (en 1)"])
    done = capsmith("data", "check", mixture, "--lang", "de")
    assert done.status == 2
    done = capsmith("data", "check", captions, "--column", "photo")
    assert done.status == 2
    assert done.complaints == ["capsmith: --column photo is not of the form NAME=VALUE"]
    done = capsmith("data", "check", tmp_path / "absent")
    assert (done.status, len(done.complaints)) == (1, 1)


def test_copies_of_real_photos_are_near_and_others_are_not() -> None:
    names = sorted(PHOTOS)
    hashes = [photo_hash(photo(name)) for name in names]
    copies = []
    for name in names:
        image = photo(name)
        small = image.resize((image.width // 3, image.height // 3))
        copy = Image.open(io.BytesIO(encoded(small, "JPEG", quality=40)))
        copies.append(photo_hash(copy.point(lambda value: min(255, round(value * 1.1)))))
    pairs = list(near_pairs(np.stack(hashes), np.stack(copies)))  # type: ignore[arg-type]
    assert pairs == [(number, number) for number in range(len(names))]
    assert photo_hash(Image.new("RGB", (100, 100), "white")) is None


def test_what_lies_alone_in_a_folder_of_pairs_is_named(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.jpg", "b.jpg", "more/c.jpg"])
    (tmp_path / "a.txt").write_text("A dog runs .")
    (tmp_path / "more" / "c.txt").write_text("A girl sings .")
    (tmp_path / "more" / "d.caption").write_text("A cat sleeps .")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy film")
    source = DataSource(path=str(tmp_path))
    lines = [str(finding) for finding in check([source]).findings]
    assert lines == [
        f"{tmp_path}/b.jpg: empty: is a photo without a file of captions beside it",
        f"{tmp_path}/more/d.caption: missing: has no photo of its name beside it",
    ]
    assert len(read_data([source]).photos) == 2
