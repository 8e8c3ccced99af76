from __future__ import annotations

import numpy as np
import pytest

from capsmith.errors import DataError
from capsmith.evaluate.diversity import diversity
from capsmith.evaluate.metrics import DEFAULT, SCORERS, Captions
from capsmith.evaluate.report import report
from capsmith.evaluate.scores import Scores, agree, compare, measure, per_caption
from tests.unit.evaluate.test_statistics import CANDIDATES, REFERENCES

SCORED = {name: SCORERS[name] for name in DEFAULT}


def scores_of(texts: list[str], copies: int = 1) -> Scores:
    references = REFERENCES * copies
    captions = Captions.of(texts * copies, range(len(references)), references, language="en")
    return measure(captions, SCORED)


def test_scores_are_those_of_a_report():
    found, known = scores_of(CANDIDATES), report(CANDIDATES, REFERENCES)
    expected = {"CIDEr": known.cider, "ROUGE-L": known.rouge_l, "BLEU-4": known.bleu[3]}
    for name, interval in expected.items():
        mine = found.metrics[name].interval
        assert (mine.value, mine.low, mine.high) == pytest.approx(
            (interval.value, interval.low, interval.high)
        )


def test_a_set_compared_with_itself_differs_by_nothing():
    for difference in compare(scores_of(CANDIDATES), scores_of(CANDIDATES)).values():
        assert difference.interval.low == difference.interval.high == 0
        assert not difference.is_measurable


def test_a_clear_difference_is_measurable_and_has_a_direction():
    worse = ["a dog", *CANDIDATES[1:]]
    found = compare(scores_of(CANDIDATES, 30), scores_of(worse, 30))
    assert found["CIDEr"].is_measurable
    assert found["CIDEr"].interval.high < 0
    assert found["CIDEr"].second < found["CIDEr"].first
    assert found["BLEU-4"].interval.value == pytest.approx(
        found["BLEU-4"].second - found["BLEU-4"].first
    )


def test_one_photo_that_differs_is_no_measurable_difference():
    found = compare(scores_of(CANDIDATES), scores_of(["a dog", *CANDIDATES[1:]]))
    assert not found["ROUGE-L"].is_measurable


def test_sets_of_other_sizes_cannot_be_compared():
    with pytest.raises(DataError, match="4 and 8 captions"):
        compare(scores_of(CANDIDATES), scores_of(CANDIDATES, 2))


def test_people_who_judge_as_a_metric_does_agree_with_it():
    captions = Captions.of(CANDIDATES, range(4), REFERENCES, language="en")
    metrics = per_caption(captions, SCORED)
    judgements = np.argsort(np.argsort(metrics["ROUGE-L"].per_caption)).astype(float)
    assert agree(metrics, judgements)["ROUGE-L"].kendall_b == pytest.approx(1)


def test_what_captions_are_like():
    found = diversity(["a dog runs", "a dog runs", "a cat", ""])
    assert found.distinct_1 == pytest.approx(4 / 8)
    assert found.distinct_2 == pytest.approx(3 / 5)
    assert found.vocabulary == 4
    assert found.mean_words == 2
    assert found.identical_share == 0.5
    assert (found.commonest, found.commonest_count) == ("a dog runs", 2)
    assert diversity([""]).distinct_1 == 0
    with pytest.raises(DataError, match="no captions"):
        diversity([])
