"""Captions that lie beside their photos: in a folder, or in the shards of a webdataset."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

from capsmith.data.photos import PhotoBytes, is_photo_name, is_tar, tar_members
from capsmith.data.rows import Finding, OnFinding, Place, Row
from capsmith.data.text_files import read_lines
from capsmith.errors import DataError

SIDECARS = (".txt", ".caption")
_MAX_SIDECAR_BYTES = 1_000_000


def sidecar(folder: Path, on_finding: OnFinding) -> Iterator[Row]:
    """A folder in which `name.txt` or `name.caption` holds the captions of the photo beside it.

    Each line that is not empty is a caption. The photo's id is its path below the folder.
    """
    for photo, text_file in sidecar_pairs(folder):
        name, source = photo.relative_to(folder).as_posix(), PhotoBytes(photo)
        lines = [entry for entry in read_lines(text_file, on_finding) if entry[1].strip()]
        for number, line in lines or [(1, "")]:
            yield Row(photo=name, text=line, place=Place(text_file, number), source=source)


def sidecar_pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """(photo, file of its captions) for the photos below the folder that have one."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        there = set(names)
        for name in sorted(names):
            if is_photo_name(name):
                stem = name[: name.rindex(".")]
                beside = next((stem + suffix for suffix in SIDECARS if stem + suffix in there), "")
                if beside:
                    yield Path(parent, name), Path(parent, beside)


def orphans(folder: Path) -> Iterator[Finding]:
    """What `sidecar` leaves out: photos without a file of captions, and such files without photo.

    Text files that lie where no photo does, notes and lists, are none.
    """
    paired = {path for pair in sidecar_pairs(folder) for path in pair}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        if not any(is_photo_name(name) for name in names):
            continue
        for name in sorted(names):
            path = Path(parent, name)
            if path not in paired and is_photo_name(name):
                wrong = "is a photo without a file of captions beside it"
                yield Finding(kind="empty", place=Place(path), message=wrong)
            elif path not in paired and path.suffix in SIDECARS:
                wrong = "has no photo of its name beside it"
                yield Finding(kind="missing", place=Place(path), message=wrong)


def webdataset(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """One shard, or a folder of them: members of one key are a photo and its captions.

    `KEY.txt` and `KEY.caption` hold captions, one a line; `KEY.json` has them as "caption",
    "captions" or "text". The photo's id is the shard's name and the member's.
    """
    for shard in shards(path):
        for _, group in groupby(tar_members(shard), key=lambda photo: _key(photo.member)):
            members = list(group)
            photo = next((entry for entry in members if is_photo_name(entry.member)), None)
            for member in members if photo else ():
                texts = _texts(member, on_finding)
                for text in texts:
                    assert photo is not None
                    place = Place(shard, entry=member.member)
                    name = f"{shard.stem}/{photo.member}"
                    yield Row(photo=name, text=text, place=place, source=photo)


def shards(path: Path) -> list[Path]:
    """The tars that a path names: itself, or those in the folder, sorted."""
    if path.is_dir():
        return sorted(entry for entry in path.glob("*.tar") if is_tar(entry))
    return [path]


def has_captions(shard: Path) -> bool:
    """Whether one of a tar's first members is a caption; photos alone are not a data set."""
    for number, member in enumerate(tar_members(shard)):
        if PurePosixPath(member.member).suffix.lower() in (*SIDECARS, ".json"):
            return True
        if number == 20:
            break
    return False


def _key(member: str) -> str:
    folder, slash, name = member.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _texts(member: PhotoBytes, on_finding: OnFinding) -> list[str]:
    suffix = PurePosixPath(member.member).suffix.lower()
    if suffix not in (*SIDECARS, ".json"):
        return []
    place = Place(member.path, entry=member.member)
    if member.size > _MAX_SIDECAR_BYTES:
        on_finding(Finding(kind="row", place=place, message="is too large for captions"))
        return []
    try:
        with member.path.open("rb") as file:
            file.seek(member.offset)
            raw = file.read(member.size)
    except OSError as error:
        raise DataError(f"{member}: cannot be read: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start + 1} is not UTF-8"
        on_finding(Finding(kind="encoding", place=place, message=wrong))
        text = raw.decode("cp1252", errors="replace")
    if suffix == ".json":
        return _json_texts(text, place, on_finding)
    return [line for line in text.splitlines() if line.strip()] or [""]


def _json_texts(text: str, place: Place, on_finding: OnFinding) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        on_finding(Finding(kind="row", place=place, message="is not a JSON object"))
        return []
    found: object = next((content[n] for n in ("caption", "captions", "text") if n in content), [])
    texts = found if isinstance(found, list) else [found]
    return [entry for entry in texts if isinstance(entry, str)]
