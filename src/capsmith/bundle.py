"""Bundles: folders that hold a whole captioner, described by `captioner.json`.

A bundle is read strictly: every file is listed with its size and SHA-256, nothing is missing,
nothing is extra, nothing is a link, and no field is unknown. It is written once, atomically, and
never changed. Nothing in it is ever executed as code.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from capsmith import atomic, strict_json
from capsmith.description import (
    FORMAT,
    Decoding,
    Description,
    Encoder,
    FileFacts,
    LanguageModel,
    Prefix,
    Preprocessing,
    Quirks,
    TextRules,
    TextTower,
    check_values,
)
from capsmith.errors import BundleError
from capsmith.file_hashes import remembered_sha256, sha256_of

__all__ = [
    "DESCRIPTION_NAME",
    "FORMAT",
    "GRAPHS",
    "MAX_DESCRIPTION_BYTES",
    "Bundle",
    "Decoding",
    "Description",
    "Encoder",
    "FileFacts",
    "LanguageModel",
    "Prefix",
    "Preprocessing",
    "Quirks",
    "TextRules",
    "TextTower",
    "Verify",
    "read_bundle",
    "read_description",
    "write_bundle",
]

DESCRIPTION_NAME = "captioner.json"

GRAPHS = ("encoder.onnx", "mapper.onnx", "decoder.onnx", "text.onnx")
_REQUIRED = ("mapper.onnx", "decoder.onnx", "tokenizer.json", "README.md", "LICENSE.md")
_TEXT_TOWER = ("text.onnx", "text_tokenizer.json")
_OPTIONAL = ("encoder.onnx", *_TEXT_TOWER, "classes.txt")
MAX_DESCRIPTION_BYTES = 1_000_000
_DIGEST = "description_sha256"
_AGAIN = "download or export the bundle again"

Verify = Literal["auto", "always"]


@dataclass(frozen=True, kw_only=True)
class Bundle(Description):
    """A bundle that was read and verified, and the folder where it lies."""

    folder: Path

    @property
    def has_encoder(self) -> bool:
        """Whether `encoder.onnx` is inside; without it the bundle captions features."""
        return "encoder.onnx" in self.files

    @property
    def has_text_tower(self) -> bool:
        """Whether a text tower is inside, which embeds text in the space of the pictures."""
        return self.text_tower is not None

    @property
    def size_bytes(self) -> int:
        """Size of all listed files."""
        return sum(facts.size_bytes for facts in self.files.values())


def read_bundle(folder: Path, *, verify: Verify = "auto", allow_hard_links: bool = False) -> Bundle:
    """Read and verify a bundle.

    Files over 100 MB are hashed at the first load and remembered by size and time under the
    user's cache folder; verify "always" hashes every file now. Hard links are refused, because a
    file that has another name can be changed from outside the bundle, except where the caller
    knows that an installer made them. Raises `BundleError` in one line.
    """
    folder = Path(folder).resolve()
    sizes = _scan(folder, allow_hard_links=allow_hard_links)
    description = read_description(folder)
    for name in sorted(sizes.keys() - description.files.keys() - {DESCRIPTION_NAME}):
        raise _bad(
            folder,
            f"holds {strict_json.show(name)}, which captioner.json does not list",
            "remove it",
        )
    for name, facts in description.files.items():
        if name not in sizes:
            raise _bad(folder / name, "is missing, and captioner.json lists it", _AGAIN)
        if sizes[name] != facts.size_bytes:
            wrong = f"has {sizes[name]:,} bytes where captioner.json lists {facts.size_bytes:,}"
            raise _bad(folder / name, wrong, _AGAIN)
        _check_hash(folder / name, facts, verify)
    inherited = {field.name: getattr(description, field.name) for field in fields(description)}
    return Bundle(folder=folder, **inherited)


def write_bundle(
    folder: Path,
    description: Description | Mapping[str, Any],
    files: Mapping[str, Path | bytes],
) -> Bundle:
    """Write a bundle atomically: the folder appears whole or not at all.

    `description` is a `Description` or its dictionary form; "format" and "files" are set here.
    `files` maps names to contents or to files to copy. Bundles never change: a folder that exists
    is refused. Raises `BundleError`; on an error nothing is left behind.
    """
    folder = Path(folder).resolve()
    given = description.to_dict() if isinstance(description, Description) else dict(description)
    plain = {**given, "format": FORMAT, "files": {}}
    # Checked before gigabytes are copied; taken from what was read, so that every default is
    # written down and a later version's defaults do not change the bundle.
    plain = _as_json(_parse_description(folder, _as_json(plain)).to_dict())
    try:
        with atomic.new_folder(folder) as temporary:
            for name, source in sorted(files.items()):
                _check_name(folder, name)
                plain["files"][name] = asdict(_copy(source, temporary / name))
            checked = _parse_description(folder, plain)
            _check_names(folder, checked)
            text = json.dumps({**plain, _DIGEST: _digest(plain)}, indent=1, ensure_ascii=False)
            (temporary / DESCRIPTION_NAME).write_bytes(f"{text}\n".encode())
    except FileExistsError:
        raise _bad(folder, "exists, and bundles never change", "choose a new folder") from None
    except OSError as error:
        wrong = f"cannot be written ({error.filename}: {error.strerror})"
        raise _bad(folder, wrong, "check disk and permissions") from None
    return Bundle(
        folder=folder, **{field.name: getattr(checked, field.name) for field in fields(checked)}
    )


def _bad(path: Path, wrong: str, cure: str) -> BundleError:
    return BundleError(f"{path}: {wrong}; {cure}")


def _scan(folder: Path, *, allow_hard_links: bool) -> dict[str, int]:
    """Sizes by name of all that lies in the folder; anything but plain files is refused."""
    try:
        states = {path.name: path.lstat() for path in sorted(folder.iterdir())}
    except FileNotFoundError:
        raise _bad(folder, "no such bundle folder", "check the path") from None
    except NotADirectoryError:
        raise _bad(folder, "is a file, not a bundle folder", "give the folder") from None
    except OSError as error:
        raise _bad(folder, f"cannot be read ({error.strerror})", "check its permissions") from None
    if DESCRIPTION_NAME not in states:
        raise _bad(folder, f"is not a bundle (no {DESCRIPTION_NAME})", "give a bundle's folder")
    for name, state in states.items():
        shown = folder / strict_json.show(name)[1:-1]
        if stat.S_ISLNK(state.st_mode):
            raise _bad(shown, "is a symbolic link", "put the file itself there")
        if not stat.S_ISREG(state.st_mode):
            raise _bad(shown, "is not a plain file", "remove it")
        if state.st_nlink > 1 and not allow_hard_links:
            raise _bad(shown, "is a hard link to a file elsewhere", "put a copy of the file there")
    return {name: state.st_size for name, state in states.items()}


def read_description(folder: Path) -> Description:
    """Read and check `captioner.json` alone, whatever else is there; raises `BundleError`."""
    path = folder / DESCRIPTION_NAME
    try:
        value = strict_json.read_object(path, max_bytes=MAX_DESCRIPTION_BYTES)
    except ValueError as error:
        raise _bad(path, str(error), _AGAIN) from None
    except OSError as error:
        raise _bad(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    description = _parse_description(folder, value)
    if value.get(_DIGEST) != _digest(value):
        raise _bad(path, "was changed after it was written", _AGAIN)
    _check_names(folder, description)
    return description


def _parse_description(folder: Path, value: Mapping[str, Any]) -> Description:
    path = folder / DESCRIPTION_NAME
    version = value.get("format")
    if type(version) is int and version > FORMAT:
        newer = f"has format {strict_json.show(version)}, this capsmith reads up to {FORMAT}"
        raise _bad(path, newer, "update capsmith")
    body = {name: entry for name, entry in value.items() if name != _DIGEST}
    try:
        description = strict_json.parse(Description, body)
        check_values(description)
    except ValueError as error:
        raise _bad(path, str(error), _AGAIN) from None
    return description


def _check_names(folder: Path, description: Description) -> None:
    """The files listed are those that a bundle has: no path, no twin, nothing unknown."""
    path = folder / DESCRIPTION_NAME
    for name, facts in description.files.items():
        _check_name(folder, name)
        graph = name.removesuffix(".data")
        if graph not in description.files:
            raise _bad(path, f"lists {name} without {graph}", _AGAIN)
        if not re.fullmatch(r"[0-9a-f]{64}", facts.sha256) or facts.size_bytes < 0:
            raise _bad(path, f"lists {name} without a proper sha256 and size", _AGAIN)
    has_tower = description.text_tower is not None
    for name in (*_REQUIRED, *(_TEXT_TOWER if has_tower else ())):
        if name not in description.files:
            raise _bad(path, f"does not list {name}", _AGAIN)
    # Format 1 had text.onnx alone, which read the captions' tokens; nothing ever wrote one.
    known = {"text.onnx"} if description.format == 1 else set[str]()
    stray = description.files.keys() & set(_TEXT_TOWER) - known
    if stray and not has_tower:
        raise _bad(path, f"lists {min(stray)} without a text_tower", _AGAIN)


def _check_name(folder: Path, name: str) -> None:
    allowed = {*_REQUIRED, *_OPTIONAL, *(f"{graph}.data" for graph in GRAPHS)}
    if name not in allowed:
        unknown = f"lists {strict_json.show(name)}, which no bundle has"
        raise _bad(folder / DESCRIPTION_NAME, unknown, _AGAIN)


def _check_hash(path: Path, facts: FileFacts, verify: Verify) -> None:
    try:
        found = sha256_of(path) if verify == "always" else remembered_sha256(path)
    except OSError as error:
        raise _bad(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    if found != facts.sha256:
        raise _bad(path, "is not the file that captioner.json lists (SHA-256 differs)", _AGAIN)


def _copy(source: Path | bytes, target: Path) -> FileFacts:
    """Write the content and its facts; atomic only as part of the folder."""
    if isinstance(source, bytes):
        target.write_bytes(source)
    else:
        shutil.copyfile(source, target)
    return FileFacts(sha256=sha256_of(target), size_bytes=target.stat().st_size)


def _as_json(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader will see: tuples are lists, and what JSON cannot hold is refused."""
    try:
        made: dict[str, Any] = json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"the description cannot be written as JSON ({error}); correct it"
        ) from None
    return made


def _digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of the description in a canonical form, so that a flipped bit is seen."""
    body = {name: entry for name, entry in value.items() if name != _DIGEST}
    text = json.dumps(body, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
