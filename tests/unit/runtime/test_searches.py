"""Searches against plain readings of the papers and programs that they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from capsmith.runtime.decoding import Rules, decode
from capsmith.runtime.engine import Floats, Want
from capsmith.runtime.rules import Hypothesis
from capsmith.runtime.search import distinct
from capsmith.types import Beam, Contrastive, Greedy, TopN
from tests.toy_engine import ToyEngine, prefixes

RULES = Rules(prompt=(1,), stop=frozenset({2, 7, 9, 12, 16}), never=frozenset({0}), max_tokens=12)
SEEDS = range(12)


def test_a_repeated_caption_keeps_its_best_place() -> None:
    best, other, again = (
        Hypothesis(tokens, logprob, "stop")
        for tokens, logprob in [((4, 5), -1.0), ((6,), -2.0), ((4, 5), -3.0)]
    )
    assert distinct([best, other, again]) == [best, other]


class Reader:
    """Log-probabilities and hidden state after any tokens, each time from the start."""

    def __init__(self, engine: ToyEngine, prefix: Floats) -> None:
        self._engine, self._prefix = engine, prefix

    def __call__(self, tokens: tuple[int, ...]) -> tuple[Floats, Floats]:
        prompt = np.array([RULES.prompt + tokens])
        _, scores = self._engine.start(self._prefix, prompt, Want(top=30, hidden=True))
        assert scores.hidden is not None
        logprobs = np.full(30, -np.inf, np.float32)
        logprobs[scores.top_ids[0]] = scores.top_logprobs[0]
        logprobs[list(RULES.never)] = -np.inf
        return logprobs, scores.hidden[0]


def reader(seed: int) -> tuple[ToyEngine, Floats, Reader]:
    engine, prefix = ToyEngine(seed=seed), prefixes(1, seed=seed)
    return engine, prefix, Reader(engine, prefix)


@dataclass(frozen=True)
class Caption:
    tokens: tuple[int, ...]
    total: float = 0.0
    is_over: bool = False

    @property
    def mean(self) -> float:
        return self.total / max(1, len(self.tokens))


def clipcap_beam(read: Reader, size: int) -> list[tuple[int, ...]]:
    """`generate_beam` as it is described: stopped captions stay in the running by their mean."""
    beams = [Caption(())]
    for _ in range(RULES.max_tokens):
        rivals = [beam for beam in beams if beam.is_over]
        for beam in beams:
            if not beam.is_over:
                logprobs, _ = read(beam.tokens)
                rivals += [
                    Caption((*beam.tokens, token), beam.total + float(value), token in RULES.stop)
                    for token, value in enumerate(logprobs)
                ]
        beams = sorted(rivals, key=lambda rival: -rival.mean)[:size]
        if all(beam.is_over for beam in beams):
            break
    return [beam.tokens[:-1] if beam.is_over else beam.tokens for beam in beams]


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_with_stop(seed: int) -> None:
    engine, prefix, read = reader(seed)
    expected = list(dict.fromkeys(clipcap_beam(read, 4)))
    found = decode(engine, prefix, Beam(size=4, candidates=4, rule="mean-with-stop"), RULES)
    assert [caption.token_ids for caption in found[0]] == expected


def diverse_beams(read: Reader, groups: int, width: int, diversity: float) -> list[Caption]:
    """Vijayakumar et al. 2018, algorithm 1, with Hamming diversity and no stop token."""
    beams = [[Caption(())] for _ in range(groups)]
    for _ in range(RULES.max_tokens):
        used = np.zeros(30)
        for group in range(groups):
            rivals = [
                Caption((*beam.tokens, token), beam.total + float(value) - diversity * used[token])
                for beam in beams[group]
                for token, value in enumerate(read(beam.tokens)[0])
            ]
            beams[group] = sorted(rivals, key=lambda rival: -rival.total)[:width]
            for beam in beams[group]:
                used[beam.tokens[-1]] += 1
    return sorted((beam for group in beams for beam in group), key=lambda beam: -beam.total)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("groups", "width"), [(2, 2), (3, 1)])
def test_diverse_groups(seed: int, groups: int, width: int) -> None:
    engine, prefix, read = reader(seed)
    size = groups * width
    expected = [beam.tokens for beam in diverse_beams(read, groups, width, 0.8)]
    strategy = Beam(size=size, candidates=size, groups=groups, diversity=0.8)
    found = decode(engine, prefix, strategy, replace(RULES, stop=frozenset()))
    assert [caption.token_ids for caption in found[0]] == list(dict.fromkeys(expected))


def test_the_first_group_is_a_beam_search_of_its_own() -> None:
    engine, prefix = ToyEngine(), prefixes(10)
    plain = decode(engine, prefix, Beam(size=2, candidates=2), RULES)
    groups = Beam(size=6, candidates=6, groups=3, diversity=0.5)
    for alone, together in zip(plain, decode(engine, prefix, groups, RULES), strict=True):
        assert {c.token_ids for c in alone} <= {c.token_ids for c in together}


def contrastive(read: Reader, alpha: float, k: int) -> tuple[int, ...]:
    """Su et al. 2022, equation 5, every candidate read from the start."""
    tokens: tuple[int, ...] = ()
    earlier = [read(())[1]]
    while len(tokens) < RULES.max_tokens:
        logprobs, _ = read(tokens)
        best = (-np.inf, -1, earlier[0])
        for token in np.argsort(-logprobs, kind="stable")[:k].tolist():
            hidden = read((*tokens, token))[1]
            cosines = [
                hidden @ other / np.linalg.norm(hidden) / np.linalg.norm(other) for other in earlier
            ]
            value = (1 - alpha) * np.exp(logprobs[token]) - alpha * max(cosines)
            best = max(best, (value, token, hidden), key=lambda candidate: candidate[0])
        if best[1] in RULES.stop:
            break
        tokens = (*tokens, best[1])
        earlier.append(best[2])
    return tokens


@pytest.mark.parametrize("seed", SEEDS)
def test_contrastive_search(seed: int) -> None:
    engine, prefix, read = reader(seed)
    found = decode(engine, prefix, Contrastive(alpha=0.6, k=4), RULES)
    assert found[0][0].token_ids == contrastive(read, 0.6, 4)


def test_contrastive_search_without_a_penalty_or_a_choice_is_greedy() -> None:
    engine, prefix = ToyEngine(), prefixes(8)
    greedy = [picture[0].token_ids for picture in decode(engine, prefix, Greedy(), RULES)]
    for strategy in (Contrastive(alpha=0.0, k=5), Contrastive(alpha=0.9, k=1)):
        found = decode(engine, prefix, strategy, RULES)
        assert [picture[0].token_ids for picture in found] == greedy


def test_top_n_draws_among_n_by_word_number() -> None:
    engine, prefix, read = reader(0)
    strategy = TopN(schedule=((2, 3), (4, 2)), exponent=1.0, candidates=40)
    captions = decode(engine, prefix, strategy, replace(RULES, stop=frozenset()))[0]
    ranks: list[set[int]] = [set() for _ in range(RULES.max_tokens)]
    for caption in captions:
        for number, token in enumerate(caption.token_ids):
            logprobs, _ = read(caption.token_ids[:number])
            ranks[number].add(int((logprobs > logprobs[token]).sum()))
    assert ranks == [{0, 1, 2}] * 2 + [{0, 1}] * 2 + [{0}] * (RULES.max_tokens - 4)
