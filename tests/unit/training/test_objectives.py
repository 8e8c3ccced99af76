"""Captions of several languages in one batch: words are told apart, captions rewarded, in each."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from capsmith.evaluate.lexical import CiderD  # noqa: E402
from capsmith.models.caption_model import CaptionModel  # noqa: E402
from capsmith.models.language_models import (  # noqa: E402
    CrossAttentionConfig,
    CrossAttentionDecoder,
)
from capsmith.models.mappers import MLPConfig, MLPMapper  # noqa: E402
from capsmith.runtime.rules import Rules  # noqa: E402
from capsmith.training.batches import Batch  # noqa: E402
from capsmith.training.examples import Examples, Line  # noqa: E402
from capsmith.training.objectives import (  # noqa: E402
    CaptionObjective,
    RewardObjective,
    Spoken,
    rewarded,
)
from capsmith.training.own_words import OwnWords, keep_to_own_words  # noqa: E402

START, STOP, EN, DE = 0, 1, 10, 11


def captioner() -> CaptionModel:
    torch.manual_seed(0)
    decoder = CrossAttentionDecoder(
        CrossAttentionConfig(vocab_size=12, width=16, layers=1, heads=2, positions=12, languages=2)
    )
    mapper = MLPMapper(MLPConfig(input_width=6, rows=2, width=16))
    return CaptionModel(
        mapper, decoder, start_tokens=[START], end_token=STOP, language_tokens={"en": EN, "de": DE}
    ).eval()


def batch(model: CaptionModel) -> Batch:
    captions = [(2, 3, 4), (5, 6), (2, 4), (7,)]
    tokens, mask = model.tensors(captions, ["en", "de", "en", "de"])
    return Batch(torch.randn(2, 1, 6), tokens, mask, torch.tensor([0, 0, 1, 1]), (0, 1))


def test_words_told_from_all_tokens_are_the_same_loss_in_any_grouping() -> None:
    model = captioner()
    seen = batch(model)
    plain = CaptionObjective(model, label_smoothing=0.1)
    every = torch.arange(12)
    words = OwnWords({"en": every, "de": every}, 12)
    grouped = CaptionObjective(model, label_smoothing=0.1, words=words)
    torch.testing.assert_close(grouped(seen)["captions"], plain(seen)["captions"])


def test_words_are_told_from_their_languages_and_from_others_that_are_drawn() -> None:
    model = captioner()
    seen = batch(model)
    words = keep_to_own_words(model, [("en", (2, 3)), ("de", (5, 6)), ("en", (4,)), ("de", (7,))])
    own = words.tokens
    assert own["en"].tolist() == [STOP, 2, 3, 4]
    alone = CaptionObjective(model, label_smoothing=0.0, words=replace(words, others=0))
    loss = alone(seen)["captions"]
    loss.backward()
    gradient = model.language_model.bias.grad
    assert gradient[[8, 9]].tolist() == [0.0, 0.0]
    assert gradient[[2, 5]].abs().min() > 0
    prefix = model.mapper(seen.inputs)
    by_hand = []
    for row, language in enumerate(("en", "de", "en", "de")):
        ids = seen.tokens[row][seen.mask[row]]
        hidden = model.reader.hidden(ids[None, :-1], prefix, seen.owner[row : row + 1])
        logits = model.reader.head(hidden)[0, 1:, own[language]]
        place = [own[language].tolist().index(token) for token in ids[2:].tolist()]
        by_hand += (-logits.log_softmax(1)[range(len(place)), place]).tolist()
    assert loss.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)
    model.zero_grad()
    drawn = CaptionObjective(model, label_smoothing=0.0, words=replace(words, others=200))
    drawn(seen)["captions"].backward()
    assert model.language_model.bias.grad[[8, 9]].min() > 0


def test_each_photo_is_rewarded_in_a_language_that_it_has_captions_in() -> None:
    model = captioner()
    rewards: Counter[tuple[int, int]] = Counter()

    class Counted(CiderD):
        """Notes which photo is scored in which language."""

        def score(self, candidate, photo):  # type: ignore[no-untyped-def]
            rewards[self.language, photo] += 1  # type: ignore[attr-defined]
            return super().score(candidate, photo)

    def spoken(language: int, references: list[list[list[int]]], photos: dict[int, int]) -> Spoken:
        reward = Counted(references)
        reward.language = language  # type: ignore[attr-defined]
        rules = Rules(prompt=(START, language), stop=frozenset({STOP}), max_tokens=4)
        return Spoken(reward, rules, photos, dict.fromkeys(photos, float(language - 9)))

    english = spoken(EN, [[[2, 3, STOP]], [[4, STOP]]], {0: 0, 1: 1})
    german = spoken(DE, [[[5, STOP]]], {1: 0})
    objective = RewardObjective(model, spoken=[english, german], captions=2)
    for seed in range(60):
        torch.manual_seed(seed)
        objective(batch(model))["ranking"].backward()
    assert rewards[EN, 0] == 60 * 2
    assert rewards[EN, 1] + rewards[DE, 0] == 60 * 2
    assert rewards[DE, 0] / 120 == pytest.approx(2 / 3, abs=0.15)


def test_a_language_is_rewarded_more_often_than_its_captions_weigh() -> None:
    lines = (
        Line(0, (2, 3), is_cut=False, language="en", weight=1.0),
        Line(0, (5,), is_cut=False, language="de", weight=0.5),
        Line(1, (4,), is_cut=False, language="en", weight=1.0),
        Line(1, (2,), is_cut=False, language="en", weight=1.0),
    )
    examples = Examples((), lines, ((0, 1), (2, 3)))
    rules = Rules(prompt=(START,), stop=frozenset({STOP}), max_tokens=4)
    english = rewarded(examples, "en", rules, stop=STOP, times=3)
    german = rewarded(examples, "de", rules, stop=STOP)
    assert english.weights == {0: 3.0, 1: 6.0}
    assert german.weights == {0: 0.5}
    assert german.photos == {0: 0}
