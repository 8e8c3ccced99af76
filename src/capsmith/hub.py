"""Download bundles from a model hub, once, whole and verified; loading never does it by itself.

A repository holds the files of one bundle at its top; what else lies there is left. The address of
a file is Hugging Face's (`/owner/name/resolve/revision/file`), which mirrors
offer too: `HF_ENDPOINT` names one, `HF_TOKEN` opens private repositories.
"""

from __future__ import annotations

import os
from pathlib import Path

from capsmith import atomic
from capsmith.bundle import DESCRIPTION_NAME, MAX_DESCRIPTION_BYTES, FileFacts, read_description
from capsmith.downloads import Progress, continue_download
from capsmith.errors import BundleError, DownloadError
from capsmith.file_hashes import sha256_of
from capsmith.registry import hub_folder

ENDPOINT = "https://huggingface.co"


def fetch_bundle(name: str, *, progress: Progress | None = None) -> Path:
    """Fetch the bundle `owner/name` or `owner/name@revision` into the cache folder.

    Returns its folder, at once where it was fetched before: a bundle never changes. A download that
    broke off goes on where it stopped. Raises `DownloadError` and `BundleError`.
    """
    target = hub_folder(name)
    if target.is_dir():
        return target
    partial = target.with_name(f"{target.name}.part")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        _fetch_files(name, partial, progress or (lambda _name, _done, _size: None))
        atomic.publish_folder(partial, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DownloadError(f"{partial}: cannot be written: {reason}") from error
    return target


def _fetch_files(name: str, folder: Path, progress: Progress) -> None:
    description = folder / DESCRIPTION_NAME
    description.unlink(missing_ok=True)
    _fetch(name, description, MAX_DESCRIPTION_BYTES)
    listed = read_description(folder).files
    for path in folder.iterdir():
        if path.name not in {DESCRIPTION_NAME, *listed}:
            path.unlink()  # of an older revision
    for file_name, facts in listed.items():
        _fetch_listed(name, folder / file_name, facts, progress)


def _fetch_listed(name: str, path: Path, facts: FileFacts, progress: Progress) -> None:
    if _is_whole(path, facts):
        return
    if _size(path) >= facts.size_bytes:
        path.unlink()
    _fetch(name, path, facts.size_bytes, progress)
    if not _is_whole(path, facts):
        path.unlink()
        raise BundleError(
            f"{name}: {path.name} is not the file that captioner.json lists (size or SHA-256"
            " differs); fetch again, and tell its owner if that does not help"
        )


def _is_whole(path: Path, facts: FileFacts) -> bool:
    return _size(path) == facts.size_bytes and sha256_of(path) == facts.sha256


def _fetch(name: str, path: Path, max_bytes: int, progress: Progress | None = None) -> None:
    """Append what is missing of a file; never more than `max_bytes` in all."""
    repository, _, revision = name.partition("@")
    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")
    continue_download(
        f"{endpoint}/{repository}/resolve/{revision or 'main'}/{path.name}",
        path,
        max_bytes=max_bytes,
        token=os.environ.get("HF_TOKEN"),
        hints={401: "set HF_TOKEN", 404: "check the name"},
        progress=progress,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
