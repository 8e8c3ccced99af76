"""Conceptual Captions from a real server on this machine: polite, resumable, never misaligned."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from capsmith import fetch
from capsmith.data.download import Downloaded, download
from capsmith.data.formats.line_files import url_name
from capsmith.data.sources import DataSource, read_data
from capsmith.errors import DataError
from capsmith.runtime.pictures import open_picture
from tests.datasets import photo_bytes
from tests.integration.command import capsmith
from tests.servers import Answer, Server, response, serve


def fetcher(server: Server) -> Callable[[str], bytes]:
    limits = fetch.FetchLimits(ports=frozenset([server.port]), timeout_s=5)
    return partial(fetch.picture, limits=limits, is_allowed=lambda _: True)


def captions_of(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "Train_GCC-training.tsv"
    path.write_text("".join(f"{text}\t{url}\n" for text, url in rows))
    return path


def run(server: Server, path: Path, folder: Path, **options: float) -> Downloaded:
    settings = {"pause_s": 0.0, **options}
    return download(path, folder, fetch=fetcher(server), **settings)  # type: ignore[arg-type]


def test_captions_find_their_own_photo_whatever_failed(tmp_path: Path) -> None:
    good = {f"p{n}": response(photo_bytes(n), kind="image/jpeg") for n in range(6)}
    answers: dict[str, bytes | Answer] = {
        **good,
        "text": response(b"sorry", kind="text/html"),
        "broken": response(photo_bytes(9)[:300], kind="image/jpeg"),
    }
    with serve() as server:
        server.answers.update({f"/{name}": answer for name, answer in answers.items()})
        paths = ["/p0", "/gone", "/p1", "/text", "/p2", "/broken", "/p3", "/p0", "/p4", "/p5"]
        rows = [(f"caption {number}", server.url(path)) for number, path in enumerate(paths)]
        file = captions_of(tmp_path, rows)
        made = run(server, file, tmp_path / "out")
        assert made == Downloaded(addresses=9, photos=6, failed=3)
        manifest = read_data([DataSource(path=str(tmp_path / "out" / "manifest.jsonl"))])
        found = {photo.source.path.stem: photo for photo in manifest.photos}
        assert len(found) == 6
        for number in range(6):
            photo = found[url_name(server.url(f"/p{number}"))]
            expected = open_picture(photo_bytes(number)).tobytes()
            assert open_picture(photo.source.picture()).tobytes() == expected
            wanted = tuple(text for text, url in rows if url.endswith(f"/p{number}"))
            assert photo.texts() == wanted
        failed = (tmp_path / "out" / "failed.jsonl").read_text().splitlines()
        reasons = {json.loads(line)["url"]: json.loads(line)["reason"] for line in failed}
        assert "answered 404" in reasons[server.url("/gone")]
        assert "calls this text/html" in reasons[server.url("/text")]
        assert "is no photo" in reasons[server.url("/broken")]


def test_a_second_run_asks_only_for_what_is_new_unless_told(tmp_path: Path) -> None:
    with serve(a=response(photo_bytes(1)), b=response(photo_bytes(2))) as server:
        first = [("a", server.url("/a")), ("gone", server.url("/gone"))]
        run(server, captions_of(tmp_path, first), tmp_path / "out")
        server.asked.clear()
        file = captions_of(tmp_path, [*first, ("b", server.url("/b"))])
        with (tmp_path / "out" / "failed.jsonl").open("a") as journal:
            journal.write('{"url": "cut o')
        file.write_text(file.read_text() + f"lost\t{server.url('/lost')}\n")
        assert run(server, file, tmp_path / "out").photos == 2
        assert sorted(server.asked) == ["/b", "/lost"]
        server.asked.clear()
        assert run(server, file, tmp_path / "out").photos == 2
        assert server.asked == []
        server.answers["/gone"] = response(photo_bytes(3))
        assert run(server, file, tmp_path / "out", retries_failed=True).photos == 3
        assert sorted(server.asked) == ["/gone", "/lost"]


def test_a_host_has_one_request_at_a_time_and_a_pause_and_hosts_run_at_once(tmp_path: Path) -> None:
    spans: list[tuple[str, float, float]] = []
    lock = threading.Lock()

    def answer(host: str) -> Answer:
        def slowly(connection: socket.socket) -> None:
            start = time.monotonic()
            time.sleep(0.05)
            with lock:
                spans.append((host, start, time.monotonic()))
            connection.sendall(response(photo_bytes(1)))

        return slowly

    with serve() as server:
        server.answers.update({f"/{host}{n}": answer(host) for host in "xy" for n in range(4)})
        names = {"x": "127.0.0.1", "y": "localhost"}
        rows = [
            ("text", f"http://{names[host]}:{server.port}/{host}{number}")
            for host in "xy"
            for number in range(4)
        ]
        made = run(server, captions_of(tmp_path, rows), tmp_path / "out", pause_s=0.1)
    assert made.photos == 8
    for host in "xy":
        own = sorted((start, end) for name, start, end in spans if name == host)
        assert all(later[0] - before[1] > 0.05 for before, later in pairwise(own))
    assert any(
        first[1] < second[2] and second[1] < first[2]
        for first in spans
        for second in spans
        if first[0] != second[0]
    )


def test_private_addresses_are_refused_and_wrong_files_told(tmp_path: Path) -> None:
    with serve(a=response(photo_bytes(1))) as server:
        file = captions_of(tmp_path, [("a", server.url("/a"))])
        made = download(file, tmp_path / "out", fetch=fetch.picture, pause_s=0)
        assert (made.photos, server.asked) == (0, [])
    file.write_text("")
    with pytest.raises(DataError, match="holds no addresses"):
        download(file, tmp_path / "out", fetch=fetch.picture)
    file.write_text("caption without address\n")
    with pytest.raises(DataError, match=r"tsv:1: is not of the form caption<TAB>url"):
        download(file, tmp_path / "out", fetch=fetch.picture)


def test_the_command_fetches_and_says_what_failed(tmp_path: Path) -> None:
    with serve(a=response(photo_bytes(1))) as server:
        file = captions_of(tmp_path, [("a", server.url("/a"))])
        done = capsmith("data", "download", file, tmp_path / "out")
    assert done.status == 1  # this machine is no public host
    assert done.lines == [f"{tmp_path / 'out'}: 0 photos of 1 addresses, 1 failed"]
    assert "refused" in (tmp_path / "out" / "failed.jsonl").read_text()
