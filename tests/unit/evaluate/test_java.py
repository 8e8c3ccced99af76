"""Java is found or asked for in one line, and a Java program always ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from capsmith.errors import CapsmithError, ConfigError
from capsmith.evaluate.java import JavaProgram, find_java
from tests.java_files import pretend_java


def program(timeout_s: float = 30) -> JavaProgram:
    return JavaProgram("Echo", ["Echo"], memory_mb=100, timeout_s=timeout_s)


def is_alive(process_id: str) -> bool:
    stat = Path(f"/proc/{process_id}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("version", "number"), [("1.8.0_392", 8), ("11.0.2", 11), ("17.0.15", 17), ("25", 25)]
)
def test_versions(
    version: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_java(tmp_path, "", monkeypatch, version=version)
    assert find_java() == (tmp_path / "bin" / "java", number)


def test_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"java: not found; install Java 8 or later \(.*\), or"):
        find_java()


def test_java_that_is_too_old_or_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_java(tmp_path, "", monkeypatch, version="1.7.0_80")
    with pytest.raises(ConfigError, match="is Java 7, too old; install Java 8 or later"):
        find_java()
    stub = tmp_path / "stub" / "bin" / "java"
    stub.parent.mkdir(parents=True)
    stub.write_text("#!/bin/sh\necho Unable to locate a Java Runtime >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "stub"))
    with pytest.raises(ConfigError, match="is no Java that runs; install"):
        find_java()


def test_lines_go_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_java(tmp_path, 'echo "$@"; read line; echo "<$line>"; cat', monkeypatch)
    with program() as java:
        arguments = java.read().split()
        assert (arguments[0], arguments[-1]) == ("-Xmx100m", "Echo")
        java.write("café \ud800")
        assert java.read() == "<café ?>"
        java.write("rest")
        assert java.finish() == "rest\n"


def test_a_program_that_takes_too_long_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_java(tmp_path, "echo $$; exec sleep 60", monkeypatch)
    started = time.monotonic()
    with program(timeout_s=0.5) as java:
        process_id = java.read()
        with pytest.raises(CapsmithError, match=r"Echo: not done within 0\.5 seconds"):
            java.read()
    assert not is_alive(process_id)
    assert time.monotonic() - started < 30


def test_a_program_ends_with_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_java(tmp_path, "echo $$; exec sleep 60", monkeypatch)
    with program() as java:
        process_id = java.read()
        assert is_alive(process_id)
    assert not is_alive(process_id)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "echo 'Exception in thread main: x' >&2; echo '\tat y' >&2; exit 3",
            "status 3: Exception",
        ),
        ("exit 1", "status 1: no reason given"),
        ("echo 'java.lang.OutOfMemoryError: Java heap' >&2; exit 1", "100 MB of memory are not"),
        # More than a pipe holds.
        ("head -c 300000 /dev/zero | tr '\\0' x >&2; exit 1", "status 1: xxx"),
    ],
)
def test_a_program_that_fails(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_java(tmp_path, script, monkeypatch)
    with program() as java, pytest.raises(CapsmithError, match=says) as caught:
        java.finish()
    assert str(caught.value).isprintable()
    with program() as java, pytest.raises(CapsmithError, match=says):
        java.read()
    with program() as java, pytest.raises(CapsmithError, match=says):
        java.write("more than a pipe holds" * 10_000)
