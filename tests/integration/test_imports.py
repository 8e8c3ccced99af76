"""What is imported when: the directions of the design, and a command line that answers at once."""

from __future__ import annotations

import subprocess
import sys

from tests.integration.command import EXAMPLES, ROOT, environment

_PROBE = """
import sys
before = set(sys.modules)
sys.argv = ["capsmith", {argument!r}]
from capsmith.__main__ import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}), file=sys.stderr)
"""


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_import_directions() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    for argument in ("--help", "--version"):
        loaded = set(_run(_PROBE.format(argument=argument)).split())
        assert "capsmith" in loaded
        assert not loaded & {"onnxruntime", "torch", "numpy", "PIL", "tokenizers", "pydantic"}


def test_captioning_loads_neither_torch_nor_pickles() -> None:
    code = f"""
import sys
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event == "pickle.find_class" else None)
import capsmith
from tests.bundles import toy_bundle
import tempfile, pathlib
with tempfile.TemporaryDirectory() as folder:
    bundle = toy_bundle(pathlib.Path(folder) / "toy")
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnx"]:
        del sys.modules[name]  # the toy was written with it
    caption = capsmith.load(bundle.folder).caption({str(EXAMPLES / "cat.jpg")!r})
assert caption.text
assert not seen, seen
wrong = {{"torch", "transformers", "huggingface_hub", "httpx2", "onnx"}} & set(sys.modules)
assert not wrong, wrong
"""
    _run(code)
