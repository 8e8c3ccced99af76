"""Decoding: the one loop over an engine, whatever the strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from capsmith.errors import ConfigError
from capsmith.runtime.beam import BeamSearch
from capsmith.runtime.chains import Chains, Chooser, greedy_chooser, sample_chooser, top_n_chooser
from capsmith.runtime.consensus import by_consensus
from capsmith.runtime.contrastive import ContrastiveSearch
from capsmith.runtime.engine import Engine, Floats, Want
from capsmith.runtime.filters import log_softmax
from capsmith.runtime.mean_beam import MeanBeamSearch
from capsmith.runtime.rules import Hypothesis, Rules, check_rules, check_strategy
from capsmith.runtime.search import Search, distinct, first_contexts
from capsmith.types import Beam, Contrastive, Rerank, Sample, Strategy, TopN

__all__ = ["Hypothesis", "Judge", "Rules", "decode", "score", "stream"]

Judge = Callable[[int, Sequence[Hypothesis]], Floats]
"""How well each of n captions fits picture number i: float32 (n,), more is better."""

_MAX_ROUNDS = 4
"""How often captions are drawn before fewer different ones than asked for are accepted."""


def decode(
    engine: Engine,
    prefix: Floats,
    strategy: Strategy,
    rules: Rules,
    *,
    judge: Judge | None = None,
) -> list[list[Hypothesis]]:
    """Captions of B pictures: one list a picture, best first, all captions of a list different.

    prefix: float32 (B, P, D), the mapper's rows. A list has as many captions as the strategy's
    `candidates`, or fewer where there are no more. What a picture gets does not depend on the
    other pictures. judge: what re-ranks by "match". Raises `ConfigError` for a strategy or rules
    that cannot be kept to.
    """
    check_strategy(strategy)
    check_rules(rules, engine.vocab_size)
    rerank = _rerank_of(strategy)
    if rerank == "match" and judge is None:
        raise ConfigError('rerank is "match", and there is no text tower here; use another')
    if not len(prefix):
        return []
    if isinstance(strategy, Sample | TopN):
        results = _draw(engine, prefix, strategy, rules)
    else:
        search = _search(strategy, rules, len(prefix), engine.vocab_size)
        for _ in _advances(engine, prefix, search, rules):
            pass
        results = search.results()
    if rerank == "consensus":
        results = [by_consensus(hypotheses) for hypotheses in results]
    elif rerank == "match" and judge is not None:
        results = [
            _judged(hypotheses, judge(i, hypotheses)) for i, hypotheses in enumerate(results)
        ]
    if isinstance(strategy, Beam):
        results = [hypotheses[: strategy.candidates] for hypotheses in results]
    return results


def stream(
    engine: Engine,
    prefix: Floats,
    strategy: Strategy,
    rules: Rules,
    *,
    judge: Judge | None = None,
) -> Iterator[int]:
    """New tokens of one picture's best caption, each as soon as no later step can change it.

    prefix: float32 (1, P, D). Put together they are the first caption that `decode` gives. Greedy
    and contrastive search and single draws yield a token a step; a beam search yields what all its
    captions agree on; several draws, and any re-ranking, are known at the end alone.
    """
    check_strategy(strategy)
    check_rules(rules, engine.vocab_size)
    is_open = isinstance(strategy, Sample | TopN) and strategy.candidates > 1
    if is_open or _rerank_of(strategy) != "none":
        yield from decode(engine, prefix, strategy, rules, judge=judge)[0][0].token_ids
        return
    search = _search(strategy, rules, 1, engine.vocab_size)
    sent = 0
    for _ in _advances(engine, prefix, search, rules):
        decided = search.decided()
        yield from decided[sent:]
        sent = max(sent, len(decided))
    yield from search.results()[0][0].token_ids[sent:]


def score(engine: Engine, prefix: Floats, token_ids: tuple[int, ...], rules: Rules) -> float:
    """Natural log-probability of a given caption, summed, and of stopping after it.

    prefix: float32 (1, P, D); token_ids: the caption's tokens after `rules.prompt`. Where there
    are several stop tokens the likeliest counts; where there is none, the caption alone.
    """
    check_rules(rules, engine.vocab_size)
    want = Want(logits=True)
    state, scores = engine.start(prefix, first_contexts(rules.prompt, 1), want)
    total = 0.0
    for token in token_ids:
        assert scores.logits is not None
        total += float(log_softmax(scores.logits)[0, token])
        tokens = np.array([token], np.int64)
        state, scores = engine.step(state, tokens, np.zeros(1, np.int64), want)
    if not rules.stop:
        return total
    assert scores.logits is not None
    return total + float(log_softmax(scores.logits)[0, sorted(rules.stop)].max())


def _advances(engine: Engine, prefix: Floats, search: Search, rules: Rules) -> Iterator[None]:
    """The one loop: a step of the search for every yield, until no row is left."""
    prompt = first_contexts(rules.prompt, len(prefix))
    state, scores = engine.start(prefix, prompt, search.want)
    while True:
        step = search.advance(scores)
        yield
        if not len(step.tokens):
            return
        state, scores = engine.step(state, step.tokens, step.parents, search.want)


def _rerank_of(strategy: Strategy) -> Rerank:
    return strategy.rerank if isinstance(strategy, Beam | Sample) else "none"


def _judged(hypotheses: list[Hypothesis], marks: Floats) -> list[Hypothesis]:
    """The same captions by falling marks; equals stay in their order."""
    return [hypotheses[index] for index in np.argsort(-marks, kind="stable").tolist()]


def _search(strategy: Strategy, rules: Rules, pictures: int, vocab_size: int) -> Search:
    if isinstance(strategy, Beam):
        kind = MeanBeamSearch if strategy.rule == "mean-with-stop" else BeamSearch
        return kind(strategy, rules, pictures, vocab_size)
    if isinstance(strategy, Contrastive):
        return ContrastiveSearch(strategy, rules, pictures, vocab_size)
    if isinstance(strategy, Sample | TopN):
        chooser = _draws(strategy, rules, range(strategy.candidates))
        return Chains(chooser, rules, pictures, vocab_size)
    return Chains(greedy_chooser(), rules, pictures, vocab_size)


def _draws(strategy: Sample | TopN, rules: Rules, candidates: range) -> Chooser:
    if isinstance(strategy, Sample):
        return sample_chooser(strategy, rules, candidates)
    return top_n_chooser(strategy, rules, candidates)


def _draw(
    engine: Engine, prefix: Floats, strategy: Sample | TopN, rules: Rules
) -> list[list[Hypothesis]]:
    """Sampled captions, drawn again for the pictures that got too few different ones."""
    results: list[list[Hypothesis]] = [[] for _ in range(len(prefix))]
    pictures = np.arange(len(prefix))
    for turn in range(_MAX_ROUNDS):
        first = turn * strategy.candidates
        chooser = _draws(strategy, rules, range(first, first + strategy.candidates))
        search = Chains(chooser, rules, len(pictures), engine.vocab_size)
        for _ in _advances(engine, prefix[pictures], search, rules):
            pass
        for picture, more in zip(pictures.tolist(), search.results(), strict=True):
            results[picture] = distinct(results[picture] + more)[: strategy.candidates]
        lacks = [len(results[picture]) < strategy.candidates for picture in pictures.tolist()]
        pictures = pictures[lacks]
        if not len(pictures):
            break
    return [sorted(drawn, key=lambda item: -item.mean_logprob) for drawn in results]
