"""Warnings of validation."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from capsmith.training.validation import collapse


def test_captions_that_are_nearly_all_one_are_told() -> None:
    warning = collapse(["A dog."] * 3 + ["A cat."])
    assert warning is not None
    assert warning.startswith("75% of the captions are 'A dog.'")
    assert "\n" not in warning


def test_captions_that_differ_are_not() -> None:
    assert collapse(["A dog.", "A dog.", "A cat.", "A cow.", "A pig."]) is None
    assert collapse(["A dog."]) is None
    assert collapse([]) is None
