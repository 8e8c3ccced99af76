"""METEOR and SPICE equal those of pycocoevalcap in java_metrics.json, and so do Java's tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from capsmith.evaluate import jars, spice
from capsmith.evaluate.java_tokenizer import java_ptb_lines
from capsmith.evaluate.meteor import meteor
from capsmith.evaluate.tokenize import ptb_lines
from tests import java_files
from tests.parity.record_java_metrics import PHOTOS, RECORD, captions_and_references

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no captions at {DATA}")


def test_java_s_tokens_are_those_of_the_python_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    java_files.require(jars.TOKENIZER, monkeypatch)
    captions, references = captions_and_references(DATA, 500)
    lines = [*captions, *(line for others in references for line in others), "", "(a) dog\r\nruns."]
    assert java_ptb_lines(lines) == ptb_lines(lines)


@pytest.mark.slow
@pytest.mark.ci
def test_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    java_files.require(jars.METEOR, monkeypatch)
    scored = meteor(*captions_and_references(DATA, PHOTOS))
    assert scored.value == pytest.approx(RECORDED["meteor"], abs=1e-6)
    np.testing.assert_allclose(scored.per_photo, RECORDED["meteor_per_photo"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("photos", [pytest.param(10, marks=pytest.mark.ci), PHOTOS])
def test_spice(photos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    java_files.require(jars.SPICE, monkeypatch)
    monkeypatch.setattr(spice, "PHOTOS_AT_ONCE", 30)
    told: list[tuple[int, int]] = []
    scored = spice.spice(
        *captions_and_references(DATA, photos), progress=lambda *done: told.append(done)
    )
    expected = np.array(RECORDED["spice_per_photo"][:photos])
    assert scored.value == pytest.approx(expected.mean(), abs=1e-6)
    np.testing.assert_allclose(scored.per_photo, expected, atol=1e-6)
    assert set(scored.categories) == set(RECORDED["spice_categories"])
    for name, scores in scored.categories.items():
        recorded = np.array(RECORDED["spice_categories"][name][:photos], np.float64)
        np.testing.assert_allclose(scores, recorded, atol=1e-6)
    assert told == ([(10, 10)] if photos == 10 else [(30, 50), (50, 50)])
