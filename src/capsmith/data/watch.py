"""Lets the caller of long work look on: the work passes through it what it goes through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Watch(Protocol):
    """Yields the items it is given, `total` of them, and may show how far the work has come."""

    def __call__(self, items: Iterable[Item], total: int) -> Iterator[Item]: ...


def unwatched(items: Iterable[Item], total: int) -> Iterator[Item]:  # noqa: ARG001
    """Show nothing."""
    return iter(items)
