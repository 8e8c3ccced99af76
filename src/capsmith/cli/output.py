"""What the commands print: UTF-8 whatever the locale, one line a photo, nothing that a name or a
caption could use to forge another line or to steer the terminal."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

from capsmith.errors import CapsmithError
from capsmith.types import Caption

_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
# Controls, line and paragraph separators, surrogates (undecodable bytes).
_ESCAPED_CATEGORIES = frozenset({"Cc", "Zl", "Zp", "Cs"})
# Overrides and isolates can make one name look like another.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class ReaderGoneError(Exception):
    """Nobody reads our output any more: `capsmith ... | head`."""


def use_utf8() -> None:
    """Make stdout and stderr UTF-8; what UTF-8 cannot hold (undecodable bytes) is escaped.

    A lone surrogate becomes `\\udcXX`, which inside a JSON string stands for exactly itself.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, or a Windows program without a console
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def complain(message: str) -> None:
    """Print one line on stderr, led by the program's name."""
    print(f"capsmith: {message}", file=sys.stderr, flush=True)  # noqa: T201


def escape_controls(text: str) -> str:
    """`text` on one line: controls, undecodable bytes and reordering marks as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(_escape(character) for character in text)


def escape_name(name: str) -> str:
    """A file name for a line of text, reversible: on POSIX a backslash is doubled (as `ls -b`)."""
    return escape_controls(name.replace("\\", "\\\\") if os.sep == "/" else name)


def _escape(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) in _ESCAPED_CATEGORIES or character in _REORDERING:
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return character


def text_lines(name: str, caption: Caption, *, with_scores: bool) -> Iterator[str]:
    """`name TAB caption` for every candidate, and with scores `TAB logprob TAB mean_logprob`."""
    for candidate in caption.candidates:
        columns = [escape_name(name), escape_controls(candidate.text)]
        if with_scores:
            columns += [f"{candidate.logprob:.4f}", f"{candidate.mean_logprob:.4f}"]
        yield "\t".join(columns)


def json_line(name: str, caption: Caption) -> str:
    """One JSON object: the path exactly (undecodable bytes as surrogates), the caption's fields."""
    return json.dumps({"path": name, **caption.to_dict()}, ensure_ascii=False)


def json_failure(name: str, error: CapsmithError) -> str:
    """One JSON object for a photo without a caption: the error's stable code and its message."""
    failure = {"path": name, "error": {"code": error.code, "message": str(error)}}
    return json.dumps(failure, ensure_ascii=False)


def print_now(text: str) -> None:
    """Print at once, so that whoever reads a pipe need not wait for the whole run.

    Raises `ReaderGoneError` where the other end of the pipe is closed.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def print_line(line: str) -> None:
    """As `print_now`, with the end of the line."""
    print_now(line + "\n")
