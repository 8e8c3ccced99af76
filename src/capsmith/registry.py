"""Names of bundles: those inside the package, and those fetched from a hub before.

Nothing is downloaded here; `capsmith.hub` does that.
"""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from capsmith.bundle import DESCRIPTION_NAME, Bundle, Encoder, Preprocessing, Verify, read_bundle
from capsmith.errors import BundleError
from capsmith.file_hashes import cache_folder

DEFAULT = "embedded"
HUB = "hub:"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w.-]*)?", re.ASCII)


def names() -> tuple[str, ...]:
    """The names that `find_bundle` knows, sorted."""
    folder = _embedded_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(p.name for p in folder.iterdir() if (p / DESCRIPTION_NAME).is_file()))


def find_bundle(name_or_folder: str | os.PathLike[str]) -> Path:
    """The folder of a bundle, given a registered name or the folder itself.

    A name comes first; "hub:owner/name" is a bundle that was fetched. Raises `BundleError`, which
    lists the names there are.
    """
    given = os.fspath(name_or_folder)
    if isinstance(name_or_folder, str) and given in names():
        return _embedded_folder() / given
    if isinstance(name_or_folder, str) and given.startswith(HUB):
        folder = hub_folder(given.removeprefix(HUB))
        if not folder.is_dir():
            raise BundleError(
                f"{given}: not on this computer; run: capsmith fetch {given.removeprefix(HUB)}"
            )
        return folder
    if Path(given).is_dir():
        return Path(given).resolve()
    known = ", ".join(names()) or "none in this installation"
    raise BundleError(
        f"{given}: no such bundle; give a bundle's folder or one of these names: {known}"
    )


def hub_folder(name: str) -> Path:
    """Where the bundle `owner/name` or `owner/name@revision` of a hub lies once it is fetched.

    Raises `BundleError` for what is no such name.
    """
    if not _REPOSITORY.fullmatch(name):
        raise BundleError(f"{name}: not a hub's name; write owner/name or owner/name@revision")
    repository, _, revision = name.partition("@")
    return cache_folder() / "hub" / repository.replace("/", "--") / (revision or "main")


def open_bundle(name_or_folder: str | os.PathLike[str], *, verify: Verify = "auto") -> Bundle:
    """Find, read and verify a bundle; raises `BundleError`.

    Package installers (uv, conda) put hard links into site-packages, so the embedded bundles may
    be such; folders from elsewhere may not.
    """
    folder = find_bundle(name_or_folder)
    return read_bundle(folder, verify=verify, allow_hard_links=_is_embedded(folder))


def find_encoder(encoder: Encoder, preprocessing: Preprocessing) -> Path | None:
    """The `encoder.onnx` of a registered bundle that gives the same features, if there is one."""
    for name in names():
        bundle = open_bundle(name)
        if bundle.has_encoder and (bundle.encoder, bundle.preprocessing) == (
            encoder,
            preprocessing,
        ):
            return bundle.folder / "encoder.onnx"
    return None


def _is_embedded(folder: Path) -> bool:
    return folder.resolve().parent == _embedded_folder()


def _embedded_folder() -> Path:
    # A zipped package has no real folder; ONNX Runtime needs one, so nothing is found there.
    return Path(str(resources.files("capsmith") / "embedded")).resolve()
