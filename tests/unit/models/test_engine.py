"""Every engine gives the same captions for the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config as PublishedConfig
from transformers import GPT2LMHeadModel

from capsmith.models.engine import TorchEngine, TransformersEngine
from capsmith.models.gpt2 import load_gpt2
from capsmith.models.language_models import CrossAttentionConfig, CrossAttentionDecoder
from capsmith.runtime.decoding import Rules, decode
from capsmith.runtime.engine import Want
from capsmith.types import Beam, Contrastive, Greedy, Sample
from tests.toy_engine import WIDTH, prefixes

RULES = Rules(prompt=(1, 4), stop=frozenset({2, 9}), max_tokens=10)
VOCABULARY = 40


def transformers_engine() -> TransformersEngine:
    torch.manual_seed(0)
    config = PublishedConfig(
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        n_positions=32,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=None,
    )
    return TransformersEngine(GPT2LMHeadModel(config).eval())


def gpt2_engines() -> tuple[TransformersEngine, TorchEngine]:
    theirs = transformers_engine()
    ours = load_gpt2(theirs._model.state_dict(), heads=2)
    return theirs, TorchEngine(ours, vocab_size=VOCABULARY)


@pytest.mark.parametrize(
    "strategy",
    [Greedy(), Beam(size=3, candidates=3), Sample(candidates=3), Contrastive(k=3)],
    ids=str,
)
def test_same_captions(strategy: Any) -> None:
    theirs, ours = (decode(engine, prefixes(4), strategy, RULES) for engine in gpt2_engines())
    assert [[c.token_ids for c in picture] for picture in ours] == [
        [c.token_ids for c in picture] for picture in theirs
    ]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine[0].logprob == pytest.approx(other[0].logprob, abs=1e-4)


def engines() -> list[Any]:
    torch.manual_seed(0)
    decoder = CrossAttentionDecoder(
        CrossAttentionConfig(vocab_size=VOCABULARY, width=WIDTH, layers=2, heads=2, positions=32)
    )
    return [*gpt2_engines(), TorchEngine(decoder.eval(), vocab_size=VOCABULARY)]


@pytest.mark.parametrize("index", range(3), ids=["transformers", "gpt2", "cross-attention"])
def test_steps_are_pure_and_follow_their_parents(index: int) -> None:
    engine = engines()[index]
    want = Want(top=VOCABULARY, logits=True, hidden=True)
    prompt = np.array([[1], [1]])
    state, _ = engine.start(prefixes(2), prompt, want)
    tokens, parents = np.array([5, 6, 5]), np.array([1, 0, 1])
    later, first = engine.step(state, tokens, parents, want)
    engine.step(later, np.array([7]), np.array([2]), want)
    _, again = engine.step(state, tokens, parents, want)
    np.testing.assert_array_equal(again.logits, first.logits)
    # Reading everything at once is the same as reading token by token.
    _, whole = engine.start(prefixes(2)[[1, 0]], np.array([[1, 5], [1, 6]]), want)
    np.testing.assert_allclose(first.logits[:2], whole.logits, atol=1e-4)
    np.testing.assert_allclose(first.hidden[:2], whole.hidden, atol=1e-4)
    np.testing.assert_allclose(first.logits[2], first.logits[0], atol=1e-5)


@pytest.mark.parametrize("index", range(3), ids=["transformers", "gpt2", "cross-attention"])
def test_what_is_not_wanted_is_not_given(index: int) -> None:
    engine = engines()[index]
    _, scores = engine.start(prefixes(2), np.zeros((2, 1), np.int64), Want(top=3))
    assert scores.logits is None
    assert scores.hidden is None
    assert scores.top_ids.shape == scores.top_logprobs.shape == (2, 3)
    assert (np.diff(scores.top_logprobs) <= 0).all()
    _, scores = engine.start(prefixes(2), np.zeros((2, 1), np.int64), Want(top=1000))
    np.testing.assert_allclose(np.exp(scores.top_logprobs).sum(1), 1, rtol=1e-5)


def test_a_foreign_state_is_refused() -> None:
    with pytest.raises(TypeError, match="not one that this engine made"):
        engines()[1].step("state", np.array([1]), np.array([0]), Want())
