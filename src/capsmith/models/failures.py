"""What a library says when it fails, short enough for one line of ours."""

from __future__ import annotations

_MAX_LENGTH = 160


def first_sentence(error: Exception) -> str:
    """The first sentence of the error's text, on one line; advice that follows it is left out."""
    text = " ".join(str(error).split()).partition(". ")[0].removesuffix(".")
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."
