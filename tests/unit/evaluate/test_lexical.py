from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capsmith.errors import DataError
from capsmith.evaluate.lexical import CiderD, bleu, bleu_statistics, cider_d, rouge_l

WORDS = st.sampled_from(["a", "dog", "cat", "runs", "sits", "on", "the", "grass"])
CAPTION = st.lists(WORDS, min_size=1, max_size=12)
PHOTOS = st.lists(st.lists(CAPTION, min_size=1, max_size=4), min_size=2, max_size=6)


def test_cider_d_worked_by_hand():
    # Three photos, so an n-gram of one photo weighs log 3; "a" stands in all three and weighs 0.
    references = [[["a", "dog", "runs"]], [["a", "cat"]], [["a", "bird"]]]
    scorer = CiderD(references)
    # Of the candidate "a dog", order 1: cosine of (dog) and (dog, runs) = 1/sqrt(2); order 2:
    # (a dog) and (a dog, dog runs) the same; orders 3 and 4: nothing. One bigram shorter.
    penalty = math.exp(-1 / 72)
    assert scorer.score(["a", "dog"], 0) == pytest.approx(10 * 2 / math.sqrt(2) / 4 * penalty)
    # "a cat" is a photo's whole reference, but has no n-gram of orders 3 and 4.
    assert scorer.score(["a", "cat"], 1) == pytest.approx(10 * 2 / 4)
    assert scorer.score(["a", "cat"], 0) == 0


def test_cider_d_clips_repeated_words():
    scorer = CiderD([[["dog", "cat"]], [["bird"]]])
    weight = math.log(2)
    # min(3, 1) * 1 over norms 3 and sqrt(2); no bigram in common; one bigram longer.
    expected = weight**2 / (3 * weight * math.sqrt(2) * weight) / 4 * 10 * math.exp(-1 / 72)
    assert scorer.score(["dog", "dog", "dog"], 0) == pytest.approx(expected)


def test_rewards_on_token_ids_equal_scores_of_words():
    candidates = ["a dog runs on grass", "the cat"]
    references = [["a dog runs", "dog on the grass"], ["a cat sits", "the cat sits on a dog"]]
    ids = {
        word: number
        for number, word in enumerate(["a", "dog", "runs", "on", "grass", "the", "cat", "sits"])
    }
    scorer = CiderD([[[ids[w] for w in line.split()] for line in lines] for lines in references])
    rewards = [scorer.score([ids[w] for w in c.split()], i) for i, c in enumerate(candidates)]
    assert rewards == pytest.approx(cider_d(candidates, references).per_photo)
    assert min(rewards) > 0


@given(PHOTOS, st.data())
def test_cider_d_is_between_0_and_10_and_ignores_the_order_of_references(references, data):
    photo = data.draw(st.integers(0, len(references) - 1))
    candidate = data.draw(CAPTION)
    score = CiderD(references).score(candidate, photo)
    assert 0 <= score <= 10 + 1e-9
    mixed = [list(data.draw(st.permutations(lines))) for lines in references]
    assert CiderD(mixed).score(candidate, photo) == pytest.approx(score)


@given(PHOTOS)
def test_no_caption_scores_above_the_only_reference_itself(references):
    single = [lines[:1] for lines in references]
    scorer = CiderD(single)
    own = scorer.score(single[0][0], 0)
    assert all(scorer.score(lines[0], 0) <= own + 1e-9 for lines in single)


def test_bleu_worked_by_hand():
    # 5 of 6 words, 3 of 5 pairs, 1 of 4 triples; "the" is clipped to its two in the reference.
    candidates = ["the cat sat on the mat"]
    references = [["the cat is on the mat"]]
    assert bleu_statistics(candidates, references).tolist() == [[6, 6, 6, 5, 4, 3, 5, 3, 1, 0]]
    scores = bleu(candidates, references)
    assert scores[:3] == pytest.approx(
        [5 / 6, (5 / 6 * 3 / 5) ** 0.5, (1 / 8) ** (1 / 3)], abs=1e-6
    )
    assert scores[3] < 1e-3


def test_bleu_is_penalised_against_the_closest_reference_the_shorter_of_two():
    # Lengths 2 and 6 are equally far from 4: the shorter counts, so there is no penalty.
    statistics = bleu_statistics(["a dog runs home"], [["a dog", "a dog runs home right now"]])
    assert statistics[0, :2].tolist() == [4, 2]
    short = bleu(["a dog"], [["a dog runs home"]])
    assert short[0] == pytest.approx(math.exp(1 - 4 / 2), abs=1e-6)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(CAPTION, min_size=1, max_size=5))
def test_a_caption_equal_to_a_reference_is_perfect(captions):
    candidates = [" ".join(words) for words in captions]
    references = [[line, "something else"] for line in candidates]
    assert rouge_l(candidates, references) == pytest.approx(1)
    assert bleu(candidates, references)[0] == pytest.approx(1, abs=1e-6)


def test_rouge_l_worked_by_hand():
    # Common subsequence "a b d": precision 3/4, recall 3/5.
    precision, recall = 3 / 4, 3 / 5
    expected = 2.44 * precision * recall / (recall + 1.44 * precision)
    assert rouge_l(["a b d c"], [["x a b y d"]]) == pytest.approx([expected])
    assert rouge_l(["a", ""], [["b"], ["b"]]).tolist() == [0, 0]


@pytest.mark.parametrize("metric", [cider_d, bleu, rouge_l])
def test_captions_and_references_that_do_not_match_are_refused(metric):
    with pytest.raises(DataError, match="2 candidates for 1 photos"):
        metric(["a", "b"], [["a"]])
    with pytest.raises(DataError, match="photo 1 has no reference"):
        metric(["a", "b"], [["a"], []])


def test_an_empty_caption_scores_nothing():
    assert cider_d(["", "a dog"], [["a dog"], ["a cat"]]).per_photo[0] == 0
    assert np.all(bleu([""], [["a dog"]]) < 1e-6)


def test_no_references_at_all_is_refused():
    with pytest.raises(DataError, match="no references"):
        CiderD([])
