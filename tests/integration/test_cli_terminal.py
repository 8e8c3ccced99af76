"""The command line among others: pipes that close, interruptions, terminals, large folders."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from capsmith.cli.progress import progress_line
from tests.bundles import toy_bundle
from tests.integration.command import EXAMPLES, command, environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and terminals")

CAT = EXAMPLES / "cat.jpg"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "toy").folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 10,000 small photos, hard links to one."""
    folder = tmp_path_factory.mktemp("many")
    with Image.open(CAT) as picture:
        picture.resize((64, 64)).save(folder / "00000.jpg")
    for number in range(1, 10_000):
        (folder / f"{number:05}.jpg").hardlink_to(folder / "00000.jpg")
    return folder


def interruptible() -> None:
    """A shell starts its background jobs with Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(bundle: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("caption", "--model", bundle, "--threads", "1", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        preexec_fn=interruptible,
    )


def test_a_reader_that_leaves_ends_it_quietly(bundle: Path, many: Path) -> None:
    with start(bundle, many) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(os.fsencode(many))
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


def test_ctrl_c_ends_it_quietly(bundle: Path, many: Path) -> None:
    with start(bundle, many) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) == 130
        assert process.stderr.read() == b""


def test_lines_come_before_the_last_photo_is_read(bundle: Path, many: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "late.jpg"
    os.mkfifo(pipe)
    early = sorted(many.iterdir())[:64]
    with start(bundle, *early, pipe) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith(os.fsencode(early[0]))
        pipe.write_bytes(CAT.read_bytes())
        rest = process.stdout.read().splitlines()
        assert len(rest) == 64
        assert rest[-1].startswith(os.fsencode(pipe))


# The peak of a process counts what its parent held when it was started, so the parent is small.
_PEAK = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.ci
@pytest.mark.slow
def test_ten_thousand_photos_stay_within_400_mb(bundle: Path, many: Path) -> None:
    run = command("caption", "--model", bundle, "--threads", "1", "--beam", "1", many)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *run], capture_output=True, env=environment(), check=True
    )
    assert done.stdout.count(b"\n") == 10_000
    kilobyte = 1 if sys.platform == "darwin" else 1024
    peak_bytes = int(done.stderr.splitlines()[-1]) * kilobyte
    assert 30_000_000 < peak_bytes < 400_000_000


def test_progress_is_shown_on_a_terminal_alone(bundle: Path, many: Path) -> None:
    import pty

    leader, terminal = pty.openpty()
    photos = sorted(many.iterdir())[:400]
    with subprocess.Popen(
        command("caption", "--model", bundle, "--threads", "1", *photos),
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=environment(),
    ) as process:
        os.close(terminal)
        assert process.stdout is not None
        captions = process.stdout.read()
    shown = _read_all(leader).decode()
    assert captions.count(b"\n") == 400
    assert re.search(r"\d+/400 photos  \d+\.\d/s  \d+:\d\d left", shown)
    assert shown.endswith("\r\x1b[K")


def _read_all(descriptor: int) -> bytes:
    read = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            more = os.read(descriptor, 65536)
        except OSError:  # how Linux tells that the other side is closed
            break
        if not more:
            break
        read += more
    os.close(descriptor)
    return read


def test_progress_line() -> None:
    assert progress_line(120, 4567, 3.0) == "120/4567 photos  40.0/s  1:51 left"
    assert progress_line(1, 10_001, 1.0) == "1/10001 photos  1.0/s  2:46:40 left"
