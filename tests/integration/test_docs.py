"""Documentation that cannot rot: generated pages are current, links lead somewhere, code runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.integration.command import EXAMPLES, PHOTOS, ROOT, capsmith, environment

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *EXAMPLES.glob("*.md")])
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def test_the_generated_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/make_reference.py", "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in _LINK.findall(text):
        if not target.startswith(("http://", "https://", "#")):
            path = page.parent / target.partition("#")[0]
            assert path.exists(), f"{page.name} links to {target}"


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # mkdocs-material's own notice about the future of MkDocs counts as a warning.
        env=environment({"NO_MKDOCS_2_WARNING": "1"}),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "reference" / "cli" / "index.html").read_text(encoding="utf-8")
    assert "--allow-urls" in page


def test_the_readme_has_two_commands_first_and_their_parts_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    install, check = re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL)[:2]
    assert install.count("\n") == check.count("\n") == 1
    assert install.split(" && ")[-1].strip() == ".venv/bin/capsmith caption examples"
    script = check.split()[-1]
    assert (ROOT / script).is_file()
    assert script in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_options_named_in_the_pages_exist() -> None:
    known = set(re.findall(r"--[a-z][a-z0-9-]+", "\n".join(capsmith("caption", "--help").lines)))
    for page in PAGES:
        for command in re.findall(r"capsmith caption [^\n`]*", page.read_text(encoding="utf-8")):
            named = set(re.findall(r"(?<= )--[a-z][a-z0-9-]+", command.split("|")[0]))
            assert named <= known, f"{page.name}: {command}"


def test_example_photos_are_credited_small_and_without_metadata() -> None:
    from PIL import Image

    credit = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in PHOTOS:
        assert f"| {name} |" in credit
        assert (EXAMPLES / name).stat().st_size < 100_000
        with Image.open(EXAMPLES / name) as picture:
            assert not picture.getexif()


@pytest.mark.ci
@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute()
    first = next(cell for cell in notebook.cells if cell.id == "first")
    shown = first.outputs[-1]["data"]["text/html"]
    assert "<img src=" in shown
    assert "<figcaption" in shown
    assert not any(folder.iterdir())
