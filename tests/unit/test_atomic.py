"""A file or folder that was written is whole or absent, also when the writer is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from capsmith import atomic
from tests.bundles import names


def test_writes_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic.write_text(target, "grün\n")
    assert target.read_bytes() == "grün\n".encode()
    atomic.write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic.write_bytes(target, b"old")

    def write_half() -> None:
        with atomic.open_file(target) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_the_name_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic.open_file(target) as file:
        file.write(b"data")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == b"data"


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
def test_new_files_have_the_permissions_that_any_file_gets(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "atomic", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_long_name_fits(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    atomic.write_bytes(target, b"data")
    assert target.read_bytes() == b"data"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    with atomic.new_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_bytes(b"1")
        assert not target.exists()
    assert (target / "sub" / "a").read_bytes() == b"1"
    assert names(target.parent) == ["folder"]


def test_a_folder_that_failed_is_absent(tmp_path: Path) -> None:
    def fill_half() -> None:
        with atomic.new_folder(tmp_path / "folder") as folder:
            (folder / "a").write_bytes(b"1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill_half()
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [[], ["a"]])
def test_an_existing_folder_is_never_replaced(tmp_path: Path, content: list[str]) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    for name in content:
        (target / name).write_bytes(b"old")
    with pytest.raises(FileExistsError), atomic.new_folder(target):
        pass
    assert names(target) == content
    assert names(tmp_path) == ["folder"]


def test_a_folder_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def fill_too_late() -> None:
        with atomic.new_folder(target) as folder:
            (folder / "a").write_bytes(b"mine")
            target.mkdir()

    with pytest.raises(FileExistsError):
        fill_too_late()
    assert names(target) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from capsmith import atomic
stop_before = sys.argv[2]
def kill(event, arguments):
    if event == stop_before and ".tmp" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
atomic.write_bytes(Path(sys.argv[1]), b"new" * 100_000)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize(("event", "expected"), [("open", b"old"), ("os.rename", b"old")])
def test_killed_before_a_step_the_old_content_stays(
    tmp_path: Path, event: str, expected: bytes
) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(target), event], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == expected


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file size")
def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from capsmith import atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    atomic.write_bytes(Path(sys.argv[1]), b'new' * 100_000)\n"
        "except OSError:\n"
        "    sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == 7
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]
