"""METEOR on captions that were written to confuse it."""

from __future__ import annotations

from pathlib import Path

import pytest

from capsmith.errors import CapsmithError, DataError
from capsmith.evaluate import jars
from capsmith.evaluate.meteor import meteor
from tests import java_files

PLAIN = "a dog runs on grass"
REFERENCES = ["a dog is running on the grass", "the dog runs"]
HOSTILE = [
    "a\ndog\r\n|||",
    "",
    "   ",
    "||| a ||| b",
    "<b |||> dog",
    "\N{DOG FACE} café \ud800",
    "EVAL ||| 1",
    "\x00\x1f\u2028x",
    "a long caption of words " * 209,
]


@pytest.mark.slow
@pytest.mark.ci
def test_no_caption_or_reference_moves_the_score_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    java_files.require(jars.METEOR, monkeypatch)
    candidates, references = [PLAIN], [REFERENCES]
    for hostile in HOSTILE:
        candidates += [hostile, PLAIN, "a dog"]
        references += [["a dog"], REFERENCES, [hostile, "a dog"]]
    scored = meteor(candidates, references)
    plain, same = scored.per_photo[[0, *range(2, len(candidates), 3)]], scored.per_photo[3::3]
    assert plain == pytest.approx([0.37710762891779275] * len(plain), abs=1e-6)
    assert same == pytest.approx([1.0] * len(same))
    of_hostile = dict(zip(HOSTILE, scored.per_photo[1::3], strict=True))
    assert of_hostile[""] == of_hostile["   "] == of_hostile["EVAL ||| 1"] == 0
    assert 0 < of_hostile["<b |||> dog"] < 1
    assert 0 < scored.value < 1


@pytest.mark.parametrize(
    ("candidates", "references", "says"),
    [(["a"], [], "1 candidates for 0"), ([], [], "0 candidates"), (["a"], [[]], "photo 0")],
)
def test_what_cannot_be_scored(
    candidates: list[str], references: list[list[str]], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        meteor(candidates, references)


def test_an_answer_that_is_no_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java_files.pretend_java(tmp_path, "read line; echo Hello; read line", monkeypatch)
    java_files.pretend_files(tmp_path / "jars", jars.METEOR, monkeypatch)
    with pytest.raises(CapsmithError, match="answered 'Hello'"):
        meteor(["a"], [["a"]])
