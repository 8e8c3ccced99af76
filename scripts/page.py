"""What the scripts that print results share: pages with markers, and how a script ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from capsmith import atomic
from capsmith.errors import CapsmithError, ConfigError

BEGIN, END = "<!-- results {}: begin -->", "<!-- results {}: end -->"


def put_between(page: Path, text: str, name: str) -> None:
    """Replace what lies between the markers of a name; raises `ConfigError` without them."""
    first, last = BEGIN.format(name), END.format(name)
    try:
        before, begin, rest = page.read_text(encoding="utf-8").partition(first)
    except OSError as error:
        raise ConfigError(f"{page}: cannot be read: {error.strerror}; check --out") from None
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ConfigError(f"{page}: lacks {first} or {last}; add them where the table belongs")
    atomic.write_bytes(page, f"{before}{first}\n\n{text}\n{last}{after}".encode())


def exit_status(work: Callable[[], None]) -> int:
    """0, or 1 when the work ends with a `CapsmithError`, which becomes one line on stderr."""
    try:
        work()
    except CapsmithError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0
