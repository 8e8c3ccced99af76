"""Java programs beside this one: found, started with a bound on memory and time, always ended."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from capsmith.errors import CapsmithError, ConfigError

OLDEST: Final = 8
_VERSION: Final = re.compile(r'version "(?:1\.)?(\d+)')
_INSTALL: Final = (
    f"install Java {OLDEST} or later (apt-get install default-jre-headless; brew install openjdk;"
    " https://adoptium.net), or let JAVA_HOME name it"
)


def find_java() -> tuple[Path, int]:
    """The `java` command of JAVA_HOME, else of PATH, and its major version, such as 17.

    Raises `ConfigError` with what to install where there is none, or one too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = (home and shutil.which("java", path=str(Path(home, "bin")))) or shutil.which("java")
    if not found:
        raise ConfigError(f"java: not found; {_INSTALL}")
    version = _version(found)
    if version is None:
        raise ConfigError(f"{found}: is no Java that runs; {_INSTALL}")
    if version < OLDEST:
        raise ConfigError(f"{found}: is Java {version}, too old; {_INSTALL}")
    return Path(found), version


@cache
def _version(java: str) -> int | None:
    try:
        # macOS has a java command that only says where to get one.
        run = subprocess.run([java, "-version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = _VERSION.search(run.stderr.decode("utf-8", "replace"))
    return int(version[1]) if version and not run.returncode else None


class JavaProgram:
    """A running Java program, which ends with the block: by itself, or killed.

    name: what messages call it. arguments: class path, class and its arguments. memory_mb: the
    bound of Java's heap. timeout_s: seconds from the start, after which it is killed. Everything
    raises `CapsmithError`, one line, when the program fails; `ConfigError` when Java is not there.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, memory_mb: int, timeout_s: float
    ) -> None:
        java, _ = find_java()
        self._name = name
        self._memory_mb = memory_mb
        self._timeout_s = timeout_s
        # A file, because a pipe that nobody reads stops the program when it is full.
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        # Java before 18 takes its encoding from the locale.
        options = [f"-Xmx{memory_mb}m", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8"]
        self._process = subprocess.Popen(
            [java, *options, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            cwd=tempfile.gettempdir(),
        )
        self._has_timed_out = threading.Event()
        self._timer = threading.Timer(timeout_s, self._time_out)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._process.kill()
        # Its end has been read, or does not matter any more.
        self._process.communicate()
        self._complaints.close()

    def write(self, line: str) -> None:
        """Send one line."""
        assert self._process.stdin
        try:
            self._process.stdin.write(line.encode("utf-8", "replace") + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure() from error

    def read(self) -> str:
        """The next line that the program prints, without its end."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._failure()
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def finish(self) -> str:
        """Send nothing more, wait for the end, and return what else was printed."""
        rest, _ = self._process.communicate()
        if self._process.returncode:
            raise self._failure()
        return rest.decode("utf-8", "replace")

    def _time_out(self) -> None:
        self._has_timed_out.set()
        self._process.kill()

    def _failure(self) -> CapsmithError:
        self._process.kill()
        status = self._process.wait()
        if self._has_timed_out.is_set():
            return CapsmithError(
                f"{self._name}: not done within {self._timeout_s:g} seconds; score fewer photos,"
                " or give it more time (timeout_s)"
            )
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").splitlines()
        if any("OutOfMemoryError" in line for line in lines):
            return CapsmithError(
                f"{self._name}: {self._memory_mb} MB of memory are not enough; give it more"
                " (memory_mb)"
            )
        # Java says what went wrong first and where (lines that begin with a tab) after it.
        said = [line for line in lines if "Exception" in line or "Error" in line] or lines[-1:]
        reason = " ".join(said[:1])[:200] or "no reason given"
        return CapsmithError(f"{self._name}: Java ended with status {status}: {reason}")
