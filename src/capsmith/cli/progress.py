"""One line on the terminal: how much is done, how fast, and for how much longer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_REDRAW_AFTER_S = 0.2
_CLEAR_LINE = "\r\x1b[K"


class _Line:
    """A line on stderr that is drawn anew, while stderr is a terminal; elsewhere it is silent.

    A context manager: on leaving, the line is gone.
    """

    def __init__(self, *, is_wanted: bool = True) -> None:
        self._started = self._drawn = time.monotonic()
        self._is_shown = is_wanted and sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, so that other lines can be printed to the same terminal."""
        self._write(_CLEAR_LINE)

    def _redraw(self, line: Callable[[float], str]) -> None:
        """Show what `line` makes of the seconds since the start, if it is time to."""
        now = time.monotonic()
        if now - self._drawn >= _REDRAW_AFTER_S:
            self._drawn = now
            self._write(_CLEAR_LINE + line(now - self._started))

    def _write(self, text: str) -> None:
        if self._is_shown:
            sys.stderr.write(text)
            sys.stderr.flush()


class Progress(_Line):
    """Counts photos."""

    def __init__(self, total: int) -> None:
        super().__init__(is_wanted=total > 1)
        self._total = total
        self._done = 0

    def advance(self) -> None:
        """One photo more is done."""
        self.reach(self._done + 1)

    def reach(self, done: int) -> None:
        """So many photos are done."""
        self._done = done
        self._redraw(lambda elapsed_s: progress_line(self._done, self._total, elapsed_s))


class Bytes(_Line):
    """Counts the bytes of a file that is fetched."""

    def update(self, name: str, done: int, size: int) -> None:
        """`done` of `size` bytes of a file are here."""
        self._redraw(lambda _elapsed_s: f"{name}  {done / 1e6:.1f}/{size / 1e6:.1f} MB")


def progress_line(done: int, total: int, elapsed_s: float) -> str:
    """`done/total photos, rate, time left`, for instance `120/4567 photos  41.0/s  1:48 left`."""
    rate = done / elapsed_s
    minutes, seconds = divmod(round((total - done) / rate), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{done}/{total} photos  {rate:.1f}/s  {left} left"
