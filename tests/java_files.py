"""Java and the files of METEOR and SPICE for the tests: found, or the test skips and says why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from capsmith.errors import ConfigError
from capsmith.evaluate.jars import JarFile, missing_files
from capsmith.evaluate.java import find_java

# What scripts/install-jars fills.
FOLDER = Path(__file__).resolve().parents[1] / ".jars"


def require(files: Sequence[JarFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the test where Java or one of the files is missing."""
    try:
        find_java()
    except ConfigError as error:
        pytest.skip(str(error))
    if missing_files(files) and FOLDER.is_dir():
        monkeypatch.setenv("CAPSMITH_JARS", str(FOLDER))
    if missing := missing_files(files):
        names = ", ".join(file.name for file in missing)
        pytest.skip(f"not here: {names} (scripts/install-jars puts them into {FOLDER})")


def pretend_java(
    folder: Path, script: str, monkeypatch: pytest.MonkeyPatch, *, version: str = "17.0.1"
) -> None:
    """Let a shell script answer in place of Java; `$@` are the arguments of the program."""
    java = folder / "bin" / "java"
    java.parent.mkdir()
    head = f"""[ "$1" = -version ] && echo 'openjdk version "{version}" 2021-10-19' >&2 && exit"""
    java.write_text(f"#!/bin/sh\n{head}\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(folder))


def pretend_files(folder: Path, files: Sequence[JarFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay empty files in place of the real ones."""
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setenv("CAPSMITH_JARS", str(folder))
