from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsmith.errors import ConfigError, DataError
from capsmith.evaluate.cider import cider_scores
from capsmith.evaluate.lexical import CiderD, bleu, rouge_l
from capsmith.evaluate.metrics import DEFAULT, SCORERS, Captions, choose_metrics, mean_of

WORDS = st.sampled_from(["a", "dog", "cat", "runs", "sits", "on", "the", "grass"])
CAPTION = st.lists(WORDS, max_size=12).map(" ".join)
PHOTOS = st.lists(st.lists(CAPTION, min_size=1, max_size=4), min_size=1, max_size=6)
REFERENCES = [["a dog runs"], ["a cat"], ["a bird"]]


def test_plain_cider_worked_by_hand():
    # Three photos, so an n-gram of one of them weighs log 3, and "a" weighs nothing. Of order 1
    # the cosine of (dog) and (dog, runs) is 1/sqrt(2), of order 2 that of (a dog) and (a dog, dog
    # runs) too; the candidate has nothing longer. The mean of four, neither scaled nor punished
    # for its length.
    plain = cider_scores(["a dog"], REFERENCES, np.array([0]), is_plain=True)
    assert plain == pytest.approx([2 / math.sqrt(2) / 4])
    community = cider_scores(["a dog"], REFERENCES, np.array([0]))
    assert community == pytest.approx(plain * 10 * math.exp(-1 / 72))


def test_plain_cider_rewards_repeated_words_and_cider_d_does_not():
    references = [["dog cat"], ["bird"]]
    # (3 dogs) and (dog, cat): 3 / (3 * sqrt(2)), whereas clipped it is 1 / (3 * sqrt(2)).
    plain = cider_scores(["dog dog dog"], references, np.array([0]), is_plain=True)
    clipped = cider_scores(["dog dog dog"], references, np.array([0]))
    assert plain == pytest.approx([1 / math.sqrt(2) / 4])
    assert clipped == pytest.approx([10 / 3 / math.sqrt(2) / 4 * math.exp(-1 / 72)])


def test_plain_cider_of_a_photo_s_only_reference_is_one():
    line = "a brown dog runs home"
    scores = cider_scores([line], [[line], ["x"]], np.array([0]), is_plain=True)
    assert scores == pytest.approx([1])


@settings(max_examples=100, deadline=None)
@given(PHOTOS, st.data())
def test_scores_of_all_captions_are_those_of_each(references, data):
    photo = st.integers(0, len(references) - 1)
    rows = data.draw(st.lists(st.tuples(CAPTION, photo), min_size=1, max_size=8))
    scorer = CiderD([[line.split() for line in group] for group in references])
    found = cider_scores([line for line, _ in rows], references, np.array([p for _, p in rows]))
    assert found == pytest.approx([scorer.score(line.split(), photo) for line, photo in rows])


def test_every_metric_of_words_by_its_name():
    texts, references = ["A dog runs.", "the cat"], [["A dog runs home."], ["A cat sits."]]
    captions = Captions.of(texts, [0, 1], references, language="en")
    assert captions.tokens == ["a dog runs", "the cat"]
    found = {k: v for name in DEFAULT for k, v in SCORERS[name](captions).items()}
    assert list(found) == ["CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"]
    tokens = [["a dog runs home"], ["a cat sits"]]
    assert found["BLEU-2"].value == pytest.approx(bleu(captions.tokens, tokens)[1])
    assert found["BLEU-2"].per_caption[0] == pytest.approx(bleu(["a dog runs"], tokens[:1])[1])
    assert found["ROUGE-L"].value == pytest.approx(rouge_l(captions.tokens, tokens).mean())
    assert list(SCORERS["cider-plain"](captions)) == ["CIDEr, not D"]


def test_a_photo_may_have_several_captions_which_share_its_references():
    captions = Captions.of(["a dog", "a dog", "a cat"], [0, 0, 1], REFERENCES, language="en")
    scores = SCORERS["cider"](captions)["CIDEr"].per_caption
    # Weights are counted over the three photos, whatever captions they have.
    assert (
        scores[0]
        == scores[1]
        == pytest.approx(cider_scores(["a dog"], REFERENCES, np.array([0]))[0])
    )


def test_a_corpus_score_that_is_no_mean_keeps_its_value():
    metric = mean_of(np.array([0.2, 0.4]), value=0.5)
    assert metric.value == pytest.approx(0.5)
    assert metric.whole(metric.parts * 2) == pytest.approx([0.4, 0.6])


def test_captions_without_references_are_refused():
    with pytest.raises(DataError, match="photo 1 has no reference"):
        Captions.of(["a"], [0], [["a"], []], language="en")
    with pytest.raises(DataError, match="no captions"):
        Captions.of([], [], [], language="en")


def test_metrics_are_chosen_by_name_in_the_order_of_tables():
    names = (*SCORERS, "clipscore")
    assert choose_metrics("default", names) == DEFAULT
    assert choose_metrics("all", names) == names
    assert choose_metrics(" BLEU, cider ", names) == ("cider", "bleu")
    assert choose_metrics("default,spice", names) == ("cider", "bleu", "rouge-l", "spice")
    with pytest.raises(ConfigError, match="no metric 'blue'; they are: default, all, cider"):
        choose_metrics("blue", names)
    with pytest.raises(ConfigError, match="empty list"):
        choose_metrics(",", names)
