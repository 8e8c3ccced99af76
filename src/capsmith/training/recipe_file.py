"""A recipe's file: YAML sections of fields, and changes to them from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from capsmith.errors import ConfigError

_MAX_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-5 is a number, as in YAML 1.2, and not text; no field stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in `SafeLoader`; raises `ConstructorError` for a repeated key."""
        made = super().construct_mapping(node, deep)
        keys = [key.value for key, _ in node.value]
        if len(set(keys)) < len(keys):
            twice = next(key for key, _ in node.value if keys.count(key.value) > 1)
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice.value} stands twice in one section", twice.start_mark
            )
        return made


_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789"))


def read_sections(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Read a recipe's sections, with changes "section.field=value" on top; values are YAML.

    A list's entry is changed by its number: "data.sources.0.path=photos". Raises `ConfigError` with
    the file and the field.
    """
    try:
        content = path.read_bytes()
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{path}: is larger than {_MAX_BYTES:,} bytes; it is no recipe")
        value = yaml.load(content.decode("utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply; it is no recipe") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path}: is not YAML ({line}); correct it") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: is no recipe: it must name sections such as data and mapper")
    for change in changes:
        _change(value, change)
    return value


def _change(value: dict[str, Any], change: str) -> None:
    name, is_there, text = change.partition("=")
    if not is_there:
        raise ConfigError(f'--set {change}: must be "section.field=value"')
    *sections, last = name.split(".")
    place: Any = value
    try:
        new = yaml.load(text, _Loader)
        for section in sections:
            place = (
                place[int(section)] if isinstance(place, list) else place.setdefault(section, {})
            )
        place[int(last) if isinstance(place, list) else last] = new
    except yaml.YAMLError:
        raise ConfigError(f"--set {change}: the value is not YAML") from None
    except (ValueError, IndexError, TypeError, AttributeError):
        raise ConfigError(f"--set {change}: the recipe has no {name}") from None
