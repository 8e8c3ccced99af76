"""Which files METEOR, SPICE and Java's tokenizer need, and where they lie.

None of them is part of capsmith: their licences (AGPL, GPL, LGPL) are not its own. They lie as the
package pycocoevalcap lays them, below a folder of capsmith's or in that package where it is
installed; `capsmith.evaluate.jar_setup` puts them there. `jars.json` lists them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from capsmith.errors import ConfigError
from capsmith.file_hashes import cache_folder

SETUP_COMMAND: Final = "capsmith eval --setup-spice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where files come from and their licence, in words."""

    name: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Size and SHA-256 of a file in an archive; of a gzip file, those of what it unfolds to.

    Copies of the models that are compressed otherwise are thus the same.
    """

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JarFile:
    """One file, `path` below the folder of files.

    size_bytes: of the file, or of its download where only `members` of that are kept. sha256: of
    the file; "" where nobody publishes one, and the `members` that are kept have theirs. maven:
    its path at Maven Central, or "" for one that pycocoevalcap's wheel holds.
    """

    path: str
    origin: Origin
    size_bytes: int
    sha256: str = ""
    maven: str = ""
    members: Mapping[str, Content] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without folders."""
        return self.path.rpartition("/")[2]


def _file(origins: Mapping[str, Origin], row: dict[str, Any]) -> JarFile:
    members = {name: Content(**content) for name, content in row.pop("members", {}).items()}
    return JarFile(origin=origins[row.pop("origin")], members=members, **row)


def _files(plain: Mapping[str, Any], wanted_by: str) -> tuple[JarFile, ...]:
    origins = {name: Origin(**origin) for name, origin in plain["origins"].items()}
    return tuple(_file(origins, dict(row)) for row in plain[wanted_by])


_LISTED: Final = json.loads((resources.files("capsmith.evaluate") / "jars.json").read_text("utf-8"))
METEOR: Final = _files(_LISTED, "METEOR")
TOKENIZER: Final = _files(_LISTED, "tokenizer")
# In the order of Java's class path.
SPICE: Final = _files(_LISTED, "SPICE")
ALL: Final = METEOR + TOKENIZER + SPICE


def jars_folder() -> Path:
    """Where `capsmith eval --setup-spice` puts the files: $CAPSMITH_JARS, else the user's cache."""
    return Path(os.environ.get("CAPSMITH_JARS") or cache_folder() / "jars").expanduser()


def find_file(file: JarFile) -> Path | None:
    """The file below `jars_folder`, else in an installed pycocoevalcap, if it lies there."""
    spec = find_spec("pycocoevalcap")
    installed = (spec and spec.submodule_search_locations) or ()
    places = (Path(folder, file.path) for folder in (jars_folder(), *installed))
    return next((path for path in places if path.is_file()), None)


def missing_files(files: Sequence[JarFile] = ALL) -> list[JarFile]:
    """Those of `files` that lie nowhere."""
    return [file for file in files if find_file(file) is None]


def need_files(files: Sequence[JarFile], *, wanted_by: str) -> list[Path]:
    """Where the files lie.

    Raises `ConfigError` where some are missing, which says from where they come, under which
    licence, how large they are and which command fetches them.
    """
    if missing := missing_files(files):
        raise ConfigError(
            f"{wanted_by} needs files that are not here: {describe(missing)};"
            f" run: {SETUP_COMMAND} (or {SETUP_COMMAND} FOLDER, where you have them)"
        )
    return [path for file in files if (path := find_file(file))]


def describe(files: Sequence[JarFile]) -> str:
    """Files by origin, with sizes and licences, in one line."""
    groups: dict[Origin, list[JarFile]] = {}
    for file in files:
        groups.setdefault(file.origin, []).append(file)
    return "; ".join(
        f"{', '.join(file.name for file in group)}"
        f" ({sum(file.size_bytes for file in group) / 1e6:.1f} MB, from {origin.name};"
        f" {origin.licence})"
        for origin, group in groups.items()
    )
