"""JSON read into frozen dataclasses, strictly: what is not exactly as declared is an error.

Unknown, missing and repeated fields, wrong types, numbers that are not finite, text that is not
UTF-8 and files that are too large all raise `ValueError` with one line that names the field.
A field that has a default may be left out, so that files written before it existed stay readable.
A union of dataclasses is told apart by `"kind"`, the class name in kebab case.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def read_object(path: Path, *, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object from a file; `ValueError` says what is wrong, without the path.

    Raises `OSError` where the file cannot be read. A file over `max_bytes` is not read at all.
    """
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"is larger than {max_bytes:,} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON (line {error.lineno}: {error.msg})") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def parse(kind: type[T], value: object, where: str = "") -> T:
    """Make a `kind` (a dataclass) from parsed JSON; `ValueError` names the field that is wrong."""
    made: T = _parse_dataclass(kind, value, where)
    return made


def tag(kind: type) -> str:
    """The `"kind"` of a dataclass in a union: `TopN` is `top-n`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def show(value: object) -> str:
    """A value from a file as short, single-line, printable text for a message."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has {show(twice)} twice in one object")
    return made


def _refuse_constant(name: str) -> object:
    raise ValueError(f"has {name}, which is not JSON")


def _parse(hint: Any, value: object, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:  # what it must be depends on other fields, and is checked with them
        return value
    if origin is Literal:
        if not any(value == allowed and type(value) is type(allowed) for allowed in arguments):
            raise _wrong(where, "one of " + ", ".join(map(repr, arguments)), value)
        return value
    if origin in (Union, types.UnionType):
        return _parse_union(arguments, value, where)
    if origin is tuple:
        return _parse_tuple(arguments, value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        inner = arguments[1]
        return {
            name: _parse(inner, entry, f"{where}.{show(name)}") for name, entry in value.items()
        }
    if is_dataclass(hint):
        return _parse_dataclass(hint, value, where)
    return _parse_scalar(hint, value, where)


def _parse_scalar(hint: Any, value: object, where: str) -> Any:
    if hint is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise _wrong(where, "a finite number", value) from None
    if type(value) is not hint:  # not isinstance: true is not a number here
        raise _wrong(where, _WORDS[hint], value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(where, "a finite number", value)
    return value


def _parse_union(arguments: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    kinds = [argument for argument in arguments if argument is not type(None)]
    if len(kinds) == 1:
        return _parse(kinds[0], value, where)
    by_tag = {tag(kind): kind for kind in kinds}
    name = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str) or name not in by_tag:
        raise _wrong(where, 'an object with "kind" one of ' + ", ".join(by_tag), value)
    rest = {field: entry for field, entry in value.items() if field != "kind"}
    return _parse_dataclass(by_tag[name], rest, where)


def _parse_tuple(arguments: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(where, "a list", value)
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise _wrong(where, f"a list of {len(arguments)}", value)
    return tuple(
        _parse(hint, entry, f"{where}[{index}]")
        for index, (hint, entry) in enumerate(zip(arguments, value, strict=True))
    )


def _parse_dataclass(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    declared = {field.name: field for field in fields(kind)}
    prefix = f"{where}." if where else ""
    for name in value:
        if name not in declared:
            raise ValueError(f"has an unknown field {prefix}{show(name)}")
    for name, field in declared.items():
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if name not in value and not has_default:
            raise ValueError(f"lacks the field {prefix}{name}")
    hints = get_type_hints(kind)
    return kind(
        **{name: _parse(hints[name], entry, prefix + name) for name, entry in value.items()}
    )


def _wrong(where: str, expected: str, value: object) -> ValueError:
    return ValueError(f"has {show(value)} as {where or 'the whole'}, which must be {expected}")
