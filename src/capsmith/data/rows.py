"""What readers of caption files give: rows, and findings of what is wrong, each with its place.

One reader serves two callers. Training passes `refuse`, which raises at the first finding;
`capsmith data check` collects the findings, and the reader goes on with the next row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from capsmith.data.photos import PhotoBytes
from capsmith.errors import DataError

Kind = Literal[
    "row",
    "encoding",
    "empty",
    "long",
    "split",
    "missing",
    "unreadable",
    "ambiguous",
    "duplicate",
    "misaligned",
    "leak",
]
"""What is wrong: a malformed row, an encoding error, an empty or over-long caption, a photo in two
splits, a photo that is missing, unreadable or not the only one of its name, near-duplicates in two
splits, captions of other photos, a held-out photo's caption in text used for training."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file, counted from 1, or an entry of a file that has no lines of its own."""

    path: Path
    line: int = 0
    entry: str = ""

    def __str__(self) -> str:
        if self.entry:
            return f"{self.path}: {self.entry}"
        return f"{self.path}:{self.line}" if self.line else str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One caption as its file has it: `photo` is what the file calls the photo, "" for none.

    `language`, `split` and `source` (where the photo's bytes are) are empty where the file does
    not say.
    """

    photo: str
    text: str
    place: Place
    language: str = ""
    split: str = ""
    source: PhotoBytes | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionLine:
    """One caption of a photo, or one text without a photo, and where it was read.

    A caption of weight 2 is to be drawn twice as often as one of weight 1.
    """

    text: str
    language: str
    place: Place
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    A clean manifest is made without the photos `drops_photos` (ids) and without `drops_line`, or
    with `new_text` in its place. What a reader finds wrong is not in its rows at all.
    """

    kind: Kind
    place: Place
    message: str
    drops_photos: tuple[str, ...] = ()
    drops_line: CaptionLine | None = None
    new_text: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}: {self.message}"


OnFinding = Callable[[Finding], None]


def refuse(finding: Finding) -> None:
    """Raise the finding as a `DataError`."""
    raise DataError(
        f"{finding.place}: {finding.message}; correct it, or make a clean copy with: capsmith data"
        " check PATH --fix OUT"
    )
