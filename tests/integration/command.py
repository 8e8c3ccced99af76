"""Runs `capsmith` as a person does: in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PHOTOS = sorted(path.name for path in EXAMPLES.glob("*.jpg"))


@dataclass(frozen=True)
class Result:
    status: int
    out: bytes
    err: bytes

    @property
    def lines(self) -> list[str]:
        return self.out.decode("utf-8").splitlines()

    @property
    def complaints(self) -> list[str]:
        return self.err.decode("utf-8").splitlines()


def command(*arguments: str | bytes | os.PathLike[str]) -> list[str | bytes | os.PathLike[str]]:
    return [sys.executable, "-m", "capsmith", *arguments]


def heeding_permissions() -> list[str] | None:
    """What to put before a command so that file permissions hold for it, root included."""
    if os.geteuid() != 0:
        return []
    lost = "-dac_override,-dac_read_search"
    has_tool = shutil.which("setpriv") is not None
    return ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}"] if has_tool else None


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **(changes or {})}


def capsmith(
    *arguments: str | bytes | os.PathLike[str],
    stdin: bytes = b"",
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> Result:
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(env),
        timeout=300,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return Result(done.returncode, done.stdout, done.stderr)


def script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of `scripts/`; never a traceback."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
