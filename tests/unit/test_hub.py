"""Bundles from a hub: a real server of the same addresses, on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import capsmith
from capsmith import hub, registry
from capsmith.errors import BundleError, DownloadError
from tests.bundles import toy_bundle
from tests.photos import PHOTOS

NAME = "someone/toy"


class Hub(ThreadingHTTPServer):
    """Serves `files` as NAME's main revision; an answer ends after `breaks_after` bytes."""

    def __init__(self, files: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.breaks_after: int | None = None
        self.token = ""
        self.ranges: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        prefix = f"/{NAME}/resolve/main/"
        file = self.server.files / self.path.removeprefix(prefix)
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.send_error(401)
            return
        if not self.path.startswith(prefix) or not file.is_file():
            self.send_error(404)
            return
        start = 0
        if wanted := self.headers.get("Range", ""):
            self.server.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        body = file.read_bytes()[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = toy_bundle(tmp_path / "served").folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with Hub(files) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_fetched_bundle_captions_as_the_one_that_is_served(served: Hub) -> None:
    folder = hub.fetch_bundle(NAME)
    fetched = capsmith.load(f"hub:{NAME}", threads=1)
    assert fetched.bundle.folder == folder.resolve()
    photo = PHOTOS["cat"]
    assert fetched.caption(photo) == capsmith.load(served.files, threads=1).caption(photo)


def test_fetched_once_it_needs_no_hub(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub.fetch_bundle(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert hub.fetch_bundle(NAME) == folder


def test_loading_never_fetches(served: Hub) -> None:
    with pytest.raises(BundleError, match=f"capsmith fetch {NAME}"):
        capsmith.load(f"hub:{NAME}")


def test_a_broken_download_goes_on_where_it_stopped(served: Hub) -> None:
    largest = max((served.files).iterdir(), key=lambda file: file.stat().st_size)
    served.breaks_after = largest.stat().st_size - 10
    with pytest.raises(DownloadError, match=rf"{largest.name}: .*try again"):
        hub.fetch_bundle(NAME)
    assert not registry.hub_folder(NAME).exists()
    served.breaks_after = None
    assert registry.open_bundle(hub.fetch_bundle(NAME)).name == "toy"
    assert served.ranges == [f"bytes={largest.stat().st_size - 10}-"]


@pytest.mark.parametrize("size_change", [-1, 0, 1])
def test_what_is_not_listed_so_is_refused_and_not_kept(served: Hub, size_change: int) -> None:
    file = served.files / "tokenizer.json"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes((bytes(content) + b" ")[: len(content) + size_change])
    with pytest.raises((BundleError, DownloadError), match=r"tokenizer\.json"):
        hub.fetch_bundle(NAME)
    assert not registry.hub_folder(NAME).exists()


def test_a_description_that_lists_another_path_is_refused(served: Hub, tmp_path: Path) -> None:
    path = served.files / "captioner.json"
    plain = json.loads(path.read_text())
    plain["files"]["../../evil"] = {"sha256": hashlib.sha256(b"").hexdigest(), "size_bytes": 0}
    path.write_text(json.dumps(plain))
    with pytest.raises(BundleError, match=r"captioner\.json"):
        hub.fetch_bundle(NAME)
    assert not list(tmp_path.rglob("evil"))


def test_private_repositories_need_a_token(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    served.token = "secret"
    with pytest.raises(DownloadError, match="401; set HF_TOKEN"):
        hub.fetch_bundle(NAME)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert hub.fetch_bundle(NAME).is_dir()


@pytest.mark.parametrize(
    ("name", "says"),
    [("toy", "owner/name"), ("../toy", "owner/name"), ("a/b/c", "owner/name"), ("no/one", "404")],
)
def test_names_that_lead_nowhere(served: Hub, name: str, says: str) -> None:
    with pytest.raises((BundleError, DownloadError), match=says):
        hub.fetch_bundle(name)


def test_a_hub_that_cannot_be_reached(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match="cannot be fetched"):
        hub.fetch_bundle(NAME)


def test_files_of_an_older_revision_do_not_stay(served: Hub) -> None:
    partial = registry.hub_folder(NAME).with_name("main.part")
    partial.mkdir(parents=True)
    shutil.copy(PHOTOS["cat"], partial / "text.onnx")
    assert not (hub.fetch_bundle(NAME) / "text.onnx").exists()
