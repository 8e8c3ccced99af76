"""What an ONNX file names: operators and external files, read without running or trusting it.

A reader of the protobuf wire format (https://protobuf.dev/programming-guides/encoding/), cut down
to the fields of `onnx.proto` through which a graph reaches an operator or a file. Tensor bytes are
stepped over, so a gigabyte of weights costs nothing.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32

# Message -> field number -> message, for the fields that are walked into (names of onnx.proto).
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor",
                  23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}  # fmt: skip


class MalformedGraphError(ValueError):
    """The bytes are not a whole ONNX model."""


@dataclass(frozen=True, slots=True)
class GraphContents:
    """Names found in a graph, its subgraphs and its functions."""

    operators: set[tuple[str, str]] = field(default_factory=set)
    """(domain, operator) of every node."""
    external_files: set[str] = field(default_factory=set)
    """`location` of every tensor whose bytes lie in another file."""


def read_graph_contents(path: Path) -> GraphContents:
    """Walk the file at `path`.

    Raises `OSError`, and `MalformedGraphError` for bytes that do not parse or hold no graph.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise MalformedGraphError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            contents = GraphContents()
            _walk(data, 0, len(data), "Model", contents, 0)
    if not contents.operators:
        raise MalformedGraphError("it holds no operators")
    return contents


def _walk(
    data: mmap.mmap, start: int, end: int, message: str, contents: GraphContents, depth: int
) -> None:
    if depth > _MAX_DEPTH:
        raise MalformedGraphError("nested too deeply")
    children = _CHILDREN.get(message, {})
    text: dict[int, str] = {}
    for number, wire, left, right in _fields(data, start, end):
        if wire != _BYTES:
            continue
        if number in children:
            _walk(data, left, right, children[number], contents, depth + 1)
        elif (message, number) in _TEXT_FIELDS:
            text[number] = data[left:right].decode("utf-8", "replace")
    if message == "Node":
        contents.operators.add((text.get(7, ""), text.get(4, "")))
    elif message == "Entry" and text.get(1) == "location":
        contents.external_files.add(text.get(2, ""))


_TEXT_FIELDS = frozenset({("Node", 4), ("Node", 7), ("Entry", 1), ("Entry", 2)})


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, start, end of its payload) of each field of one message."""
    at = start
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            left = at
            _, at = _varint(data, at, end)
        elif wire == _BYTES:
            size, left = _varint(data, at, end)
            at = left + size
        elif wire in (_FIXED32, _FIXED64):
            left = at
            at += 4 if wire == _FIXED32 else 8
        else:
            raise MalformedGraphError(f"unknown wire type {wire} at byte {at}")
        if number == 0 or at > end:
            raise MalformedGraphError(f"a field ends beyond its message at byte {left}")
        yield number, wire, left, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedGraphError(f"a number is cut off at byte {at}")
