"""Fetches the photos of Conceptual Captions: many hosts at once, one request at a time each.

Photos are called by a hash of their address (`url_name`), so that a caption can only ever find its
own photo, whatever was fetched before it, failed or came twice.
"""

from __future__ import annotations

import heapq
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from capsmith import atomic
from capsmith.data.formats.line_files import conceptual_urls, url_name
from capsmith.data.manifest import write_manifest
from capsmith.data.photos import is_photo_name
from capsmith.data.rows import Finding, refuse
from capsmith.data.sources import DataSource, read_data
from capsmith.data.watch import Watch, unwatched
from capsmith.errors import CapsmithError, DataError, ImageError
from capsmith.runtime.formats import sniff
from capsmith.runtime.pictures import open_picture

Fetch = Callable[[str], bytes]

PHOTOS_FOLDER: Final = "photos"
FAILURES_NAME: Final = "failed.jsonl"
MANIFEST_NAME: Final = "manifest.jsonl"
_SEEN_SIZE: Final = (64, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """How many addresses a file has, how many photos of them are here, how many cannot be had."""

    addresses: int
    photos: int
    failed: int


def download(
    captions: Path,
    folder: Path,
    *,
    fetch: Fetch,
    parallel: int = 16,
    pause_s: float = 0.5,
    retries_failed: bool = False,
    watch: Watch = unwatched,
) -> Downloaded:
    """Fetch what `folder` lacks of the photos in a Conceptual Captions file, and list them.

    The photos lie in `folder/photos`, the manifest that readers take is `folder/manifest.jsonl`,
    and `folder/failed.jsonl` has the addresses that gave no photo, with the reason; they are asked
    again only where `retries_failed`. A host gets one request at a time and `pause_s` between two.
    Stopped in any way and run again, it goes on where it stopped.
    """
    addresses = list(dict.fromkeys(conceptual_urls(captions, refuse)))
    if not addresses:
        raise DataError(f"{captions}: holds no addresses; fetch it again")
    folder.mkdir(parents=True, exist_ok=True)
    failures = folder / FAILURES_NAME
    if retries_failed:
        failures.unlink(missing_ok=True)
    known = {*_here(folder), *map(url_name, _failed(failures))}
    todo = [url for url in addresses if url_name(url) not in known]
    with failures.open("a", encoding="utf-8") as journal:
        if journal.tell():
            journal.write("\n")  # ends a line that an interruption cut off
        outcomes = _fetch_all(todo, folder, fetch, _Hosts(todo, pause_s), parallel)
        for url, reason in watch(outcomes, len(todo)):
            if reason:
                journal.write(json.dumps({"url": url, "reason": reason}) + "\n")
                journal.flush()
    here = set(_here(folder))
    _write_manifest(captions, folder)
    photos = sum(url_name(url) in here for url in addresses)
    return Downloaded(addresses=len(addresses), photos=photos, failed=len(addresses) - photos)


def _here(folder: Path) -> Iterator[str]:
    photos = (folder / PHOTOS_FOLDER).glob("*/*")
    return (path.stem for path in photos if is_photo_name(path.name))


def _failed(journal: Path) -> Iterator[str]:
    """The addresses of the journal; a last line that was cut off is asked again."""
    lines = journal.read_text("utf-8").splitlines() if journal.exists() else []
    for line in lines:
        try:
            yield str(json.loads(line)["url"])
        except (ValueError, KeyError, TypeError):
            continue


def _fetch_all(
    urls: list[str], folder: Path, fetch: Fetch, hosts: _Hosts, parallel: int
) -> Iterator[tuple[str, str]]:
    """Yield (address, "" or why there is no photo) in the order of their end."""
    outcomes: queue.SimpleQueue[tuple[str, str | Exception]] = queue.SimpleQueue()

    def work() -> None:
        while (url := hosts.take()) is not None:
            outcome: str | Exception
            try:
                outcome = _fetch_one(url, folder, fetch)
            except Exception as error:  # such as a full disk: not the address's fault
                outcome = error
            hosts.give_back(url)
            outcomes.put((url, outcome))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(parallel)]
    for worker in workers:
        worker.start()
    try:
        for _ in urls:
            url, outcome = outcomes.get()
            if isinstance(outcome, Exception):
                raise outcome
            yield url, outcome
    finally:
        hosts.stop()
        for worker in workers:
            worker.join()


def _fetch_one(url: str, folder: Path, fetch: Fetch) -> str:
    try:
        content = fetch(url)
        open_picture(content, min_side=_SEEN_SIZE)
        suffix = sniff(content, url).lower()
    except ImageError as error:
        return f"is no photo: {error}"
    except CapsmithError as error:
        return str(error)
    name = url_name(url)
    path = folder / PHOTOS_FOLDER / name[:2] / f"{name}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, content)
    return ""


def _write_manifest(captions: Path, folder: Path) -> None:
    photos = (folder / PHOTOS_FOLDER).absolute()
    photos.mkdir(exist_ok=True)
    source = DataSource(path=str(captions.absolute()), format="conceptual", photos=(str(photos),))

    def pass_missing(finding: Finding) -> None:
        if finding.kind not in ("missing", "empty"):
            refuse(finding)

    manifest = read_data([source], on_finding=pass_missing)
    write_manifest(manifest, folder / MANIFEST_NAME)


class _Hosts:
    """Hands out addresses so that each host has one request at a time, and a pause after it."""

    def __init__(self, urls: Iterable[str], pause_s: float) -> None:
        self._pause_s = pause_s
        self._waiting: dict[str, deque[str]] = {}
        for url in urls:
            self._waiting.setdefault(_host(url), deque()).append(url)
        self._ready = [(0.0, host) for host in sorted(self._waiting)]  # sorted is a heap
        self._busy = 0
        self._changed = threading.Condition()

    def take(self) -> str | None:
        """The next address, as soon as its host may be asked; None when there will be none."""
        with self._changed:
            while self._ready or self._busy:
                now = time.monotonic()
                if self._ready and self._ready[0][0] <= now:
                    _, host = heapq.heappop(self._ready)
                    self._busy += 1
                    return self._waiting[host].popleft()
                self._changed.wait(self._ready[0][0] - now if self._ready else None)
            return None

    def give_back(self, url: str) -> None:
        """The request for an address that was taken has ended."""
        with self._changed:
            self._busy -= 1
            if self._waiting.get(_host(url)):
                heapq.heappush(self._ready, (time.monotonic() + self._pause_s, _host(url)))
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._waiting.clear()
            self._ready.clear()
            self._changed.notify_all()


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
