"""The wheel and the sdist, built and installed as pip does it, without the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from capsmith import __version__, registry
from tests.integration.command import EXAMPLES, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.ci]

MAX_WHEEL_BYTES = 30_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel alone; what it depends on is lent from this one."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    wheel = next(built.glob("*.whl"))
    options = ["--no-deps", "--no-index", "--no-cache-dir", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], check=True
    )
    # As an entry of sys.path, not as a site folder: an editable install of ours stays out.
    site_packages(folder).joinpath("lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"))


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def test_the_wheel_holds_the_package_and_its_captioner(built: Path) -> None:
    wheel = next(built.glob("*.whl"))
    assert wheel.name == f"capsmith-{__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < MAX_WHEEL_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    bundle = registry.open_bundle(registry.DEFAULT)
    inside = f"capsmith/embedded/{bundle.name}/"
    assert {inside + name for name in (*bundle.files, "captioner.json")} <= names
    assert "capsmith/py.typed" in names
    top = {name.partition("/")[0] for name in names}
    assert top == {"capsmith", f"capsmith-{__version__}.dist-info"}
    licences = {name.partition("/licenses/")[2] for name in names if "/licenses/" in name}
    assert {"LICENSE", f"src/{inside}LICENSE.md"} <= licences


def test_the_sdist_holds_what_the_tests_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "scripts/test"} <= names
    assert {"tests/integration/test_packaging.py", "examples/cat.jpg", "docs/index.md"} <= names


@pytest.mark.skipif(os.name != "posix", reason="file permissions")
def test_the_wheel_captions_from_elsewhere_with_nothing_writable(
    installed: Path, tmp_path: Path
) -> None:
    packages = site_packages(installed)
    photo = shutil.copy(EXAMPLES / "cat.jpg", tmp_path / "photo.jpg")
    for path in (tmp_path, packages, *packages.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    before = snapshot(packages)
    clean = {"PATH": os.defpath, "HOME": "/nonexistent", "LC_ALL": "C"}
    done = subprocess.run(
        [installed / "bin" / "capsmith", "caption", photo],
        capture_output=True,
        cwd=tmp_path,
        env=clean,
        check=False,
    )
    where = subprocess.run(
        [installed / "bin" / "python", "-c", "import capsmith; print(capsmith.__file__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(packages)
    assert (done.returncode, done.stderr) == (0, b"")
    path, caption = done.stdout.decode("utf-8").strip().split("\t")
    assert path == str(photo)
    assert len(caption.split()) >= 3
    # Root may write where nobody may: nothing was.
    assert snapshot(packages) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.jpg"]
    for path in (tmp_path, packages, *packages.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
