"""Every strategy that transformers has gives the token ids of its `generate`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation import logits_process as reference

from capsmith.models.engine import TransformersEngine
from capsmith.runtime.decoding import Rules, decode
from capsmith.runtime.engine import Scores
from capsmith.runtime.filters import Filters
from capsmith.runtime.sampling import filtered
from capsmith.types import Beam, Greedy, Sample

# (vocabulary, width, layers, heads, prefix rows)
SIZES = ((23, 8, 1, 1, 1), (40, 16, 2, 2, 4), (97, 24, 2, 3, 3), (211, 32, 1, 4, 6))

# Derandomised: two float32 sums may tie within rounding, once in very many cases.
many = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.filterwarnings("ignore:Passing `(repetition|no_repeat)")


@cache
def model(index: int, seed: int) -> GPT2LMHeadModel:
    vocab_size, width, layers, heads, _ = SIZES[index]
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_positions=64,
        initializer_range=0.5,  # far from uniform: captions that differ, and stop early or late
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


@st.composite
def rules_of(draw: Any, *, vocab_size: int) -> Rules:
    token = st.integers(0, vocab_size - 1)
    max_tokens = draw(st.integers(1, 10))
    return Rules(
        prompt=draw(st.sampled_from([(), (1,), (1, 5, 6, 5)])),
        stop=draw(st.sampled_from([frozenset(), frozenset({2}), frozenset({2, 7, 11})])),
        forbidden=tuple(
            tuple(word)
            for word in draw(st.lists(st.lists(token, min_size=1, max_size=3), max_size=6))
        ),
        min_tokens=draw(st.integers(0, max_tokens)),
        max_tokens=max_tokens,
        no_repeat_ngram=draw(st.sampled_from([0, 0, 1, 2, 3])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 0.8, 1.3, 2.0])),
    )


@st.composite
def cases(draw: Any) -> tuple[GPT2LMHeadModel, np.ndarray, Rules]:
    index = draw(st.integers(0, len(SIZES) - 1))
    vocab_size, width, _, _, rows = SIZES[index]
    batch, seed = draw(st.integers(1, 3)), draw(st.integers(0, 2**16))
    prefix = np.random.default_rng(seed).normal(size=(batch, rows, width)).astype(np.float32)
    return model(index, draw(st.integers(0, 2))), prefix, draw(rules_of(vocab_size=vocab_size))


def generate(model: GPT2LMHeadModel, prefix: np.ndarray, rules: Rules, **options: Any) -> list[Any]:
    """transformers' captions, one list a picture, without prompt, stop token and padding."""
    stop, batch = sorted(rules.stop), len(prefix)
    prompt = torch.tensor([rules.prompt] * batch, dtype=torch.long)
    vectors = torch.cat([torch.from_numpy(prefix), model.get_input_embeddings()(prompt)], 1)
    sequences = model.generate(
        input_ids=prompt if rules.prompt else None,
        inputs_embeds=vectors,
        attention_mask=torch.ones(vectors.shape[:2], dtype=torch.long),
        max_new_tokens=rules.max_tokens,
        min_new_tokens=rules.min_tokens or None,
        eos_token_id=stop or None,
        pad_token_id=0,
        do_sample=False,
        bad_words_ids=[list(word) for word in rules.forbidden] or None,
        no_repeat_ngram_size=rules.no_repeat_ngram or None,
        repetition_penalty=rules.repetition_penalty,
        **options,
    )[:, len(rules.prompt) :].tolist()
    captions = []
    for tokens in sequences:
        ends = [place for place, token in enumerate(tokens) if token in rules.stop]
        captions.append(tuple(tokens[: ends[0]] if ends else tokens))
    size = len(captions) // batch
    pictures = [captions[first : first + size] for first in range(0, len(captions), size)]
    # Captions that differ in their stop token alone are the same caption.
    return [list(dict.fromkeys(picture)) for picture in pictures]


def ours(model: GPT2LMHeadModel, prefix: np.ndarray, rules: Rules, strategy: Any) -> list[Any]:
    results = decode(TransformersEngine(model), prefix, strategy, rules)
    return [[hypothesis.token_ids for hypothesis in picture] for picture in results]


@settings(many, max_examples=100)
@given(cases())
def test_greedy(case: Any) -> None:
    assert ours(*case, Greedy()) == generate(*case)


@settings(many, max_examples=150)
@given(
    cases(),
    st.integers(2, 5),
    st.data(),
    st.sampled_from([1.0, 1.0, 0.0, 0.6, 2.0, -0.7]),
)
def test_beam(case: Any, size: int, data: Any, length_penalty: float) -> None:
    candidates = data.draw(st.integers(1, size))
    expected = generate(
        *case, num_beams=size, num_return_sequences=candidates, length_penalty=length_penalty
    )
    strategy = Beam(size=size, candidates=candidates, length_penalty=length_penalty)
    for found, wanted in zip(ours(*case, strategy), expected, strict=True):
        assert found[: len(wanted)] == wanted


@settings(many, max_examples=200)
@given(
    st.integers(0, 2**16),
    st.sampled_from([0.3, 1.0, 1.7]),
    st.sampled_from([0, 1, 5, 30]),
    st.sampled_from([1.0, 0.9, 0.5, 0.05]),
    st.sampled_from([0.0, 0.02, 0.3]),
)
def test_distribution_to_sample_from(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = np.random.default_rng(seed).normal(scale=2, size=(4, 50)).astype(np.float32)
    expected = torch.from_numpy(logits) / temperature
    nothing = torch.zeros((4, 0), dtype=torch.long)
    for warper in (
        reference.TopKLogitsWarper(top_k) if top_k else None,
        reference.TopPLogitsWarper(top_p) if top_p < 1 else None,
        reference.MinPLogitsWarper(min_p) if min_p else None,
    ):
        expected = warper(nothing, expected) if warper else expected
    sample = Sample(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    options = Filters(Rules(), 50, keep=top_k or None, scale="logits").options(
        _scores(logits), np.zeros((4, 0), np.int64)
    )
    found = np.zeros((4, 50))
    np.put_along_axis(found, options.ids, filtered(options.scores, sample), 1)
    np.testing.assert_array_equal(found > 0, np.isfinite(expected.numpy()))
    np.testing.assert_allclose(found, expected.softmax(1).numpy(), atol=1e-6)


@settings(many, max_examples=150)
@given(st.integers(0, 2**16), rules_of(vocab_size=50), st.integers(0, 12))
def test_filters_of_logits(seed: int, rules: Rules, new_tokens: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(3, 50)).astype(np.float32)
    # Few different tokens, so that n-grams repeat.
    drawn = generator.integers(0, 6, size=(3, new_tokens))
    contexts = np.concatenate([np.tile(np.array(rules.prompt, np.int64), (3, 1)), drawn], 1)
    read, expected = torch.from_numpy(contexts), torch.from_numpy(logits)
    stop = sorted(rules.stop)
    if rules.repetition_penalty != 1:
        expected = reference.RepetitionPenaltyLogitsProcessor(rules.repetition_penalty)(
            read, expected
        )
    if rules.no_repeat_ngram:
        expected = reference.NoRepeatNGramLogitsProcessor(rules.no_repeat_ngram)(read, expected)
    if rules.forbidden:
        words = [list(word) for word in rules.forbidden]
        expected = reference.NoBadWordsLogitsProcessor(words, stop or None)(read, expected)
    if rules.min_tokens and stop:
        expected = reference.MinNewTokensLengthLogitsProcessor(
            len(rules.prompt), rules.min_tokens, stop
        )(read, expected)
    options = Filters(rules, 50, keep=None, scale="logits").options(_scores(logits), contexts)
    found = np.zeros_like(logits)
    np.put_along_axis(found, options.ids, options.scores, 1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def _scores(logits: np.ndarray) -> Scores:
    logprobs = torch.from_numpy(logits).log_softmax(1)
    top, ids = logprobs.topk(logits.shape[1], 1)
    return Scores(top.numpy(), ids.numpy(), logits, None)
