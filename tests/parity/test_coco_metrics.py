"""Tokens and scores of real captions equal those of pycocoevalcap in coco_metrics.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from capsmith.evaluate.lexical import bleu, cider_d, rouge_l
from capsmith.evaluate.tokenize import ptb_lines
from tests.parity.record_coco_metrics import (
    CAPTION_FILES,
    CASES,
    RECORD,
    captions_in,
    digest,
    one_against_four,
)

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
# Files of more captions are tokenised in the slow tests only.
QUICK = 15_000

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no captions at {DATA}")


def by_size(name: str) -> object:
    is_slow = RECORDED["tokens"][name]["captions"] > QUICK
    return pytest.param(name, marks=pytest.mark.slow if is_slow else ())


@pytest.mark.parametrize("name", [by_size(name) for name in CAPTION_FILES])
def test_tokens_of_every_caption_equal_the_java_program_s(name):
    captions = captions_in(DATA / name)
    assert len(captions) == RECORDED["tokens"][name]["captions"]
    assert digest(ptb_lines(captions)) == RECORDED["tokens"][name]["sha256"]


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow if CASES[c][1] > 1000 else ()) for c in CASES]
)
def test_scores_of_one_human_caption_against_the_others(case):
    candidates, references = one_against_four(DATA, case)
    flat = iter(ptb_lines([line for lines in references for line in lines]))
    tokenised = [[next(flat) for _ in lines] for lines in references]
    captions = ptb_lines(candidates)
    expected = RECORDED["scores"][case]
    assert len(captions) == CASES[case][1]

    cider = cider_d(captions, tokenised)
    rouge = rouge_l(captions, tokenised)
    assert cider.mean == pytest.approx(expected["cider"], abs=1e-6)
    assert bleu(captions, tokenised) == pytest.approx(expected["bleu"], abs=1e-6)
    assert rouge.mean() == pytest.approx(expected["rouge_l"], abs=1e-6)
    np.testing.assert_allclose(cider.per_photo[::25], expected["cider_every_25th"], atol=1e-6)
    np.testing.assert_allclose(rouge[::25], expected["rouge_l_every_25th"], atol=1e-6)
