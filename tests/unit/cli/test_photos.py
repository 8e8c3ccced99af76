"""From arguments to photos."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capsmith.cli.photos import expand_globs, find_photos
from capsmith.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.jpg", "a.jpg", "[1].jpg", "c.txt", "below/d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_patterns_are_expanded_where_the_shell_does_not() -> None:
    arguments = ["*.txt", "?.jpg", "[1].jpg", "**/*.png", "no*.jpg", "a.jpg"]
    expanded = ["c.txt", "a.jpg", "b.jpg", "[1].jpg", f"below{os.sep}d.png", "no*.jpg", "a.jpg"]
    assert list(expand_globs(arguments, is_windows=True)) == expanded
    assert list(expand_globs(arguments, is_windows=False)) == arguments


def test_names_are_shown_as_they_were_given(folder: Path) -> None:
    found = find_photos([".", "below/", f"{folder}/a.jpg", "missing"], allow_urls=False)
    assert [photo.name for photo in found.photos] == [
        "./[1].jpg",
        "./a.jpg",
        "./b.jpg",
        "./below/d.png",
        "below/d.png",
        f"{folder}/a.jpg",
        "missing",
    ]
    assert [photo.relative.as_posix() for photo in found.photos][3:6] == [
        "below/d.png",
        "d.png",
        "a.jpg",
    ]
    assert (found.skipped, found.failures) == (1, [])


def test_addresses_need_leave() -> None:
    address = "HTTPS://example.org/a/dog.jpg?size=2#top"
    with pytest.raises(ConfigError, match="--allow-urls"):
        find_photos([address], allow_urls=False)
    (photo,) = find_photos([address], allow_urls=True).photos
    assert (photo.picture, photo.relative.as_posix()) == (address, "dog.jpg")


def test_deep_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(400):
        Path("d").mkdir()
        os.chdir("d")
    Path("deep.jpg").touch()
    os.chdir(tmp_path)
    (photo,) = find_photos(["d"], allow_urls=False).photos
    assert photo.name == "d/" * 400 + "deep.jpg"
