"""A fresh process captions a photo: no PyTorch, nothing unpickled, no address opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from capsmith import registry
from tests.bundles import toy_bundle

_WATCHED = """
import sys
events = []
sys.addaudithook(lambda event, arguments: events.append(event))
import capsmith
caption = capsmith.load(sys.argv[1] or None, threads=1).caption(sys.argv[2])
assert isinstance(caption.text, str)
bad = {"pickle.find_class", "os.system", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"}
heavy = {"torch", "transformers", "fastapi", "ray", "onnx", "urllib.request", "http.client"}
print(sorted(bad & set(events)), sorted(heavy & sys.modules.keys()))
"""


@pytest.mark.parametrize("which", ["toy", "shipped"])
def test_captioning_unpickles_nothing_and_loads_no_torch(which: str, tmp_path: Path) -> None:
    if which == "shipped" and not registry.names():
        pytest.skip("no bundle is embedded in this tree")
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (300, 200), "green").save(photo)
    model = str(toy_bundle(tmp_path / "toy").folder) if which == "toy" else ""
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, model, str(photo)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[] []\n"


def test_the_watch_sees_an_unpickling(tmp_path: Path) -> None:
    code = (
        "import sys; events = []\n"
        "sys.addaudithook(lambda event, arguments: events.append(event))\n"
        "import pickle, pathlib; pickle.loads(pickle.dumps(pathlib.PurePosixPath('a')))\n"
        "print('pickle.find_class' in events)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
