"""Data sets joined into one manifest: by id, by image, with languages, weights and splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capsmith.data.manifest import Manifest, write_manifest
from capsmith.data.photos import tar_members
from capsmith.data.rows import Finding
from capsmith.data.sources import DataSource, is_mixture, read_data, read_mixture
from capsmith.errors import ConfigError, DataError
from capsmith.runtime.pictures import open_picture
from tests.datasets import photo_bytes, write_photos, write_tar

NAMES = ("a.jpg", "b.jpg", "c.jpg")


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    """Three photos with two captions each, `a` for training, `b` held out, `c` in no list."""
    write_photos(tmp_path / "Images", NAMES)
    lines = [f"{name},Caption {number} of {name} ." for name in NAMES for number in (1, 2)]
    (tmp_path / "captions.txt").write_text("\n".join(["image,caption", *lines]) + "\n")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("b.jpg\n")
    return tmp_path


def read(folder: Path, path: str = "captions.txt", **options: object) -> Manifest:
    return read_data([DataSource(path=path, **options)], base=folder)  # type: ignore[arg-type]


def test_a_folder_with_official_lists(flickr: Path) -> None:
    manifest = read(flickr, ".")
    assert [(photo.id, photo.split, photo.texts()) for photo in manifest.photos] == [
        ("a.jpg", "train", ("Caption 1 of a.jpg .", "Caption 2 of a.jpg .")),
        ("b.jpg", "val", ("Caption 1 of b.jpg .", "Caption 2 of b.jpg .")),
        ("c.jpg", "", ("Caption 1 of c.jpg .", "Caption 2 of c.jpg .")),
    ]
    assert str(manifest.photos[1].captions[1].place).endswith("captions.txt:5")
    assert manifest.languages == ("en",)
    assert [photo.id for photo in manifest.of_split("val").photos] == ["b.jpg"]


def test_photos_in_a_tar_are_read_where_they_lie(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"deep/a.jpg": photo_bytes(1), "b.jpg": photo_bytes(2)})
    (tmp_path / "captions.csv").write_text("image,caption\nb.jpg,B .\na.jpg,A .\n")
    photos = {photo.id: photo.source for photo in read(tmp_path, "captions.csv").photos}
    for name, seed in (("a.jpg", 1), ("b.jpg", 2)):
        expected = open_picture(photo_bytes(seed)).tobytes()
        assert open_picture(photos[name].picture()).tobytes() == expected
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == []
    write_tar(tmp_path / "x.tar", {"b.jpg": b"not a photo"})
    broken = next(iter(tar_members(tmp_path / "x.tar")))
    with pytest.raises(DataError, match=r"x\.tar:b\.jpg"):
        open_picture(broken.picture())


@pytest.mark.parametrize(
    ("stored", "called"),
    [
        ("a.jpg", "a"),
        ("a.jpg", "some/folder/a.jpg"),
        ("a.jpg", "folder\\a.jpg"),
        ("COCO_val2014_000000522418.jpg", "522418"),
        ("000000522418.webp", "522418"),
        ("val2014/a.jpg", "val2014/a.jpg"),
    ],
)
def test_photos_are_found_by_what_files_call_them(tmp_path: Path, stored: str, called: str) -> None:
    write_photos(tmp_path, ["other/b.jpg", stored])
    (tmp_path / "captions.csv").write_text(f"image,caption\n{called},A .\n")
    (photo,) = read(tmp_path, "captions.csv").photos
    assert photo.id == Path(stored).name
    assert photo.source.path == tmp_path / stored


def test_a_name_of_two_photos_needs_its_folder(tmp_path: Path) -> None:
    write_photos(tmp_path, ["x/a.jpg", "y/a.jpg"])
    path = tmp_path / "captions.csv"
    path.write_text("image,caption\na.jpg,A .\n")
    with pytest.raises(DataError, match=r":2: a\.jpg may be one of several photos: .*x/a\.jpg"):
        read(tmp_path, path.name)
    path.write_text("image,caption\nx/a.jpg,A .\ny/a.jpg,B .\n")
    assert [(photo.id, photo.texts()) for photo in read(tmp_path, path.name).photos] == [
        ("x/a.jpg", ("A .",)),
        ("y/a.jpg", ("B .",)),
    ]


def test_several_languages_of_the_same_photos_are_joined_by_id(flickr: Path) -> None:
    (flickr / "de.csv").write_text("image,caption\nb.jpg,Ein Hund.\na.jpg,Eine Katze.\n")
    (flickr / "zh.txt").write_text("c.jpg#zhc#0 两只狗。\n")
    (flickr / "more.txt").write_text("Text alone .\n")
    mixture = {
        "sources": [
            {"path": "captions.txt"},
            {"path": "de.csv", "language": "de", "weight": 2},
            {"path": "zh.txt"},
            {"path": "more.txt", "format": "text", "weight": 0.5},
        ]
    }
    path = flickr / "mixture.json"
    path.write_text(json.dumps(mixture))
    assert is_mixture(path)
    assert not is_mixture(flickr / "de.csv")
    manifest = read_data(read_mixture(path).sources, base=flickr)
    assert manifest.languages == ("de", "en", "zh")
    assert [photo.texts("de") for photo in manifest.photos] == [
        ("Eine Katze.",),
        ("Ein Hund.",),
        (),
    ]
    assert [photo.split for photo in manifest.photos] == ["train", "val", ""]
    weights = {c.language: c.weight for photo in manifest.photos for c in photo.captions}
    assert weights == {"en": 1.0, "de": 2.0, "zh": 1.0}
    assert [(line.text, line.weight) for line in manifest.texts] == [("Text alone .", 0.5)]
    assert manifest.of_split("train").texts == manifest.texts
    assert manifest.of_split("val").texts == ()
    path.write_text('{"sources": [{"path": "de.csv", "wieght": 2}]}')
    with pytest.raises(DataError, match=r"unknown field sources\[0\].'wieght'"):
        read_mixture(path)


def test_two_data_sets_with_the_same_names_need_names(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write_photos(tmp_path / folder, ["1.jpg"])
        (tmp_path / folder / "captions.csv").write_text(f"image,caption\n1.jpg,{folder} .\n")
    with pytest.raises(
        DataError, match=r'two photos are called 1\.jpg .*give one data set a "name"'
    ):
        read_data([DataSource(path="x"), DataSource(path="y")], base=tmp_path)
    named = [DataSource(path="x", name="x"), DataSource(path="y")]
    assert [photo.id for photo in read_data(named, base=tmp_path).photos] == ["x/1.jpg", "1.jpg"]


def test_splits_are_by_image_and_a_crossing_one_is_refused(flickr: Path) -> None:
    (flickr / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(DataError, match=r"photo b\.jpg is in .*splits are by image") as error:
        read(flickr)
    assert "Flickr_8k.trainImages.txt:2" in str(error.value)
    assert "Flickr_8k.devImages.txt:1" in str(error.value)
    (flickr / "rows.csv").write_text("image,caption,split\na.jpg,A .,train\na.jpg,B .,val\n")
    with pytest.raises(DataError, match=r"rows\.csv:3: photo a\.jpg is in"):
        read(flickr, "rows.csv")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"val": "empty.txt"}, r"empty\.txt: names no photo"),
        ({"val": "other.txt"}, r"other\.txt: names none of the photos .*its split is empty"),
        ({"eval": "Flickr_8k.devImages.txt"}, "there is no split 'eval'"),
        ({"val": "absent.txt"}, r"absent\.txt: cannot be read"),
    ],
)
def test_a_wrong_split_list_is_refused(flickr: Path, splits: dict[str, str], message: str) -> None:
    (flickr / "empty.txt").write_text("\n")
    (flickr / "other.txt").write_text("z.jpg\n")
    with pytest.raises(DataError, match=message):
        read(flickr, splits=splits)


def test_lists_without_suffixes_and_a_split_for_all(flickr: Path) -> None:
    (flickr / "ids.txt").write_text("a\nc\n")
    manifest = read(flickr, splits={"dev": "ids.txt"})
    assert [photo.split for photo in manifest.photos] == ["val", "", "val"]
    assert {photo.split for photo in read(flickr, split="train").photos} == {"train"}


def test_a_list_may_tell_photos_of_one_name_by_their_folders(tmp_path: Path) -> None:
    write_photos(tmp_path, ["x/a.jpg", "y/a.jpg"])
    (tmp_path / "captions.csv").write_text("image,caption\nx/a.jpg,A .\ny/a.jpg,B .\n")
    (tmp_path / "train.txt").write_text("x/a.jpg\n")
    (tmp_path / "val.txt").write_text("y/a.jpg\n")
    manifest = read(tmp_path, "captions.csv")
    assert [(photo.id, photo.split) for photo in manifest.photos] == [
        ("x/a.jpg", "train"),
        ("y/a.jpg", "val"),
    ]


def test_what_is_wrong_is_refused_or_collected(flickr: Path) -> None:
    path = flickr / "captions.txt"
    path.write_text(path.read_text() + "d.jpg,Missing .\na.jpg,\nd.jpg,Missing too .\n")
    with pytest.raises(DataError, match=r"captions\.txt:8: there is no photo d\.jpg; .*--fix OUT"):
        read(flickr)
    findings: list[Finding] = []
    manifest = read_data([DataSource(path=str(path))], on_finding=findings.append)
    assert [(finding.kind, finding.place.line) for finding in findings] == [
        ("missing", 8),
        ("empty", 9),
    ]
    assert len(manifest.photos) == 3


def test_no_photos_no_captions_and_wrong_weights_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "deeper" / "captions.csv").write_text("image,caption\na.jpg,A .\n")
    with pytest.raises(DataError, match=r"no photo lies below .*deep; say where they are"):
        read(tmp_path, "deep/deeper/captions.csv")
    write_photos(tmp_path, ["a.jpg"])
    (tmp_path / "captions.csv").write_text("image,caption\n")
    with pytest.raises(DataError, match="holds no captions"):
        read(tmp_path, "captions.csv")
    with pytest.raises(DataError, match="no such folder or tar of photos"):
        read(tmp_path, "captions.csv", photos=("absent",))
    with pytest.raises(ConfigError, match="weight is 0; it must be over 0"):
        read(tmp_path, "captions.csv", weight=0)


def test_held_out_photos_stay_held_out_when_others_come(flickr: Path) -> None:
    write_photos(flickr / "Images", [f"{number}.jpg" for number in range(200)])
    rows = "".join(f"{number}.jpg,Caption .\n" for number in range(200))
    (flickr / "many.csv").write_text("image,caption\n" + rows)
    every = read(flickr, "many.csv")
    held = {photo.id for photo in every.hold_out(0.25, seed=3).of_split("val").photos}
    assert 30 <= len(held) <= 70
    fewer = Manifest(every.photos[:100]).hold_out(0.25, seed=3).of_split("val")
    assert {photo.id for photo in fewer.photos} == held & {photo.id for photo in every.photos[:100]}
    assert held != {photo.id for photo in every.hold_out(0.25, seed=4).of_split("val").photos}
    with pytest.raises(ConfigError, match="must lie between 0 and 1"):
        every.hold_out(1.0)


def test_a_manifest_is_read_again_from_any_folder(flickr: Path, tmp_path: Path) -> None:
    write_tar(flickr / "more.tar", {"t.jpg": photo_bytes(9)})
    (flickr / "de.csv").write_text('image,caption\nt.jpg,"Ein ""Hund"", läuft."\na.jpg,Katze\n')
    (flickr / "text.txt").write_text("Text alone .\n")
    sources = [
        DataSource(path="captions.txt"),
        DataSource(path="de.csv", language="de", weight=0.5),
        DataSource(path="text.txt", format="text"),
    ]
    manifest = read_data(sources, base=flickr)
    path = tmp_path / "elsewhere" / "clean.jsonl"
    write_manifest(manifest, path)
    again = read_data([DataSource(path=str(path))])
    assert plain(again) == plain(manifest)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(DataError, match=r"clean\.jsonl:1: has format 2, this capsmith reads 1"):
        read_data([DataSource(path=str(path))])
    path.write_text(
        path.read_text().replace('"format": 2', '"format": 1').replace("t.jpg", "u.jpg")
    )
    with pytest.raises(DataError, match=r"more\.tar has no member u\.jpg"):
        read_data([DataSource(path=str(path))])


def plain(manifest: Manifest) -> object:
    photos = [
        (
            photo.id,
            photo.split,
            photo.source.path.resolve(),
            photo.source.member,
            photo.source.offset,
            [(c.text, c.language, c.weight) for c in photo.captions],
        )
        for photo in manifest.photos
    ]
    return photos, [(c.text, c.language, c.weight) for c in manifest.texts]
