"""Names of bundles: those that ship inside the package. Data only; nothing is downloaded."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from capsmith.bundle import DESCRIPTION_NAME, Bundle, Encoder, Preprocessing, Verify, read_bundle
from capsmith.errors import BundleError

DEFAULT = "embedded-en"


def names() -> tuple[str, ...]:
    """The names that `find_bundle` knows, sorted."""
    folder = _embedded_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(p.name for p in folder.iterdir() if (p / DESCRIPTION_NAME).is_file()))


def find_bundle(name_or_folder: str | os.PathLike[str]) -> Path:
    """The folder of a bundle, given a registered name or the folder itself.

    What looks like a path (a `PathLike`, a separator in it, or an existing folder) is one; a name
    comes first. Raises `BundleError`, which lists the names there are.
    """
    given = os.fspath(name_or_folder)
    if isinstance(name_or_folder, str) and given in names():
        return _embedded_folder() / given
    if Path(given).is_dir():
        return Path(given).resolve()
    known = ", ".join(names()) or "none in this installation"
    raise BundleError(
        f"{given}: no such bundle; give a bundle's folder or one of these names: {known}"
    )


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
