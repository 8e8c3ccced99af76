from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from capsmith.errors import ConfigError
from capsmith.runtime.decoding import Rules, decode, score, stream
from capsmith.types import Beam, Contrastive, Greedy, Sample, Strategy, TopN
from tests.toy_engine import ToyEngine, prefixes

STRATEGIES: tuple[Strategy, ...] = (
    Greedy(),
    Beam(size=1),
    Beam(size=4, candidates=4),
    Beam(size=3, candidates=2, length_penalty=0.3, rerank="consensus"),
    Beam(size=6, candidates=4, groups=3, diversity=0.7),
    Beam(size=4, candidates=3, rule="mean-with-stop"),
    Sample(seed=5),
    Sample(top_k=6, top_p=0.9, min_p=0.05, temperature=1.3, candidates=3, seed=2),
    Sample(candidates=4, rerank="consensus"),
    TopN(candidates=2),
    Contrastive(alpha=0.4, k=3),
)
RULES = Rules(prompt=(1,), stop=frozenset({2, 7}), never=frozenset({0, 3}), max_tokens=9)
STRICT = replace(
    RULES,
    forbidden=((8,), (4, 5), (11, 12, 13)),
    no_repeat_ngram=2,
    repetition_penalty=1.2,
    min_tokens=3,
)

# So many stop tokens that captions end at many lengths.
EARLY = replace(RULES, stop=frozenset({2, 7, 9, 12, 16, 20, 21, 25}), max_tokens=20)

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
every_rules = pytest.mark.parametrize("rules", [RULES, STRICT], ids=["few", "all"])


@every_rules
@every_strategy
def test_a_picture_gets_the_same_captions_in_any_batch(strategy: Strategy, rules: Rules) -> None:
    engine, prefix = ToyEngine(), prefixes(7)
    together = decode(engine, prefix, strategy, rules)
    assert together == [decode(engine, prefix[i : i + 1], strategy, rules)[0] for i in range(7)]
    order = np.random.default_rng(0).permutation(7)
    assert decode(engine, prefix[order], strategy, rules) == [together[i] for i in order]


@every_rules
@every_strategy
def test_stream_is_the_best_caption(strategy: Strategy, rules: Rules) -> None:
    for prefix in prefixes(6)[:, None]:
        best = decode(ToyEngine(), prefix, strategy, rules)[0][0]
        assert tuple(stream(ToyEngine(), prefix, strategy, rules)) == best.token_ids


@every_rules
@every_strategy
def test_captions_keep_to_the_rules(strategy: Strategy, rules: Rules) -> None:
    for captions in decode(ToyEngine(seed=3), prefixes(8), strategy, rules):
        for caption in captions:
            tokens = caption.token_ids
            assert not {*tokens} & (rules.never | rules.stop)
            assert len(tokens) >= rules.min_tokens
            assert len(tokens) <= rules.max_tokens - (caption.finish_reason == "stop")
            if rules is STRICT:
                read = rules.prompt + tokens
                for word in rules.forbidden:
                    size = len(word)
                    assert word not in [read[i : i + size] for i in range(len(read))]
                pairs = list(itertools.pairwise(read))
                assert len(pairs) == len({*pairs})


@every_strategy
def test_candidates_differ_and_the_first_is_the_single_one(strategy: Any) -> None:
    wanted = getattr(strategy, "candidates", 1)
    for captions in decode(ToyEngine(), prefixes(5), strategy, RULES):
        assert len(captions) == wanted
        assert len({caption.token_ids for caption in captions}) == wanted


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -1.0])
def test_beam_candidates_are_ordered_by_score(length_penalty: float) -> None:
    strategy = Beam(size=5, candidates=5, length_penalty=length_penalty)
    for captions in decode(ToyEngine(), prefixes(5), strategy, RULES):
        lengths = [len(c.token_ids) + (c.finish_reason == "stop") for c in captions]
        scores = [c.logprob / n**length_penalty for c, n in zip(captions, lengths, strict=True)]
        assert scores == sorted(scores, reverse=True)


@every_rules
@every_strategy
def test_logprob_is_the_models_own(strategy: Strategy, rules: Rules) -> None:
    engine, prefix = ToyEngine(), prefixes(4)
    one_stop = replace(rules, stop=frozenset({2}))
    for picture, captions in enumerate(decode(engine, prefix, strategy, one_stop)):
        for caption in captions:
            judge = (
                one_stop if caption.finish_reason == "stop" else replace(one_stop, stop=frozenset())
            )
            again = score(engine, prefix[picture : picture + 1], caption.token_ids, judge)
            assert caption.logprob == pytest.approx(again, abs=1e-4)


@every_strategy
def test_the_prompt_is_read_and_not_returned(strategy: Strategy) -> None:
    engine, rules = ToyEngine(), replace(RULES, prompt=(1, 9, 14))
    with_prompt = decode(engine, prefixes(4), strategy, rules)
    assert engine.prompts[0] == [[1, 9, 14]] * 4
    assert with_prompt != decode(ToyEngine(), prefixes(4), strategy, RULES)
    no_begin_token = replace(RULES, prompt=())
    assert len(decode(ToyEngine(), prefixes(2), strategy, no_begin_token)) == 2


@pytest.mark.parametrize("strategy", [Greedy(), Sample(), TopN()], ids=str)
def test_a_finished_row_costs_nothing(strategy: Strategy) -> None:
    engine = ToyEngine()
    captions = [picture[0] for picture in decode(engine, prefixes(12), strategy, EARLY)]
    # A caption that stops is read up to its last token, another up to its last but one.
    reads = [len(c.token_ids) - (c.finish_reason == "length") for c in captions]
    assert len({*reads}) > 2
    assert engine.rows == [12] + [sum(n > step for n in reads) for step in range(max(reads))]


@pytest.mark.parametrize("rule", ["power", "mean-with-stop"])
def test_a_finished_picture_leaves_the_beam(rule: Any) -> None:
    prefix, strategy = prefixes(12), Beam(size=2, rule=rule)
    engine = ToyEngine()
    decode(engine, prefix, strategy, EARLY)
    alone = []
    for picture in prefix[:, None]:
        single = ToyEngine()
        decode(single, picture, strategy, EARLY)
        alone.append(single.rows)
    assert len({len(rows) for rows in alone}) > 1
    together = [sum(r[step] for r in alone if step < len(r)) for step in range(len(engine.rows))]
    assert engine.rows == together


def test_streaming_greedy_gives_a_token_a_step() -> None:
    engine = ToyEngine()
    tokens = stream(engine, prefixes(1), Greedy(), RULES)
    next(tokens)
    assert len(engine.rows) == 1
    next(tokens)
    assert len(engine.rows) == 2


def test_streaming_a_beam_gives_what_all_beams_agree_on_before_the_end() -> None:
    engine = ToyEngine(sharpness=3)
    rules = replace(RULES, stop=frozenset(), max_tokens=20)
    first = stream(engine, prefixes(1), Beam(size=2), rules)
    next(first)
    assert len(engine.rows) < 20


def test_without_an_allowed_token_the_caption_ends() -> None:
    everything = frozenset(range(30))
    for strategy in STRATEGIES:
        first = decode(ToyEngine(), prefixes(2), strategy, replace(RULES, never=everything))
        assert [[c.token_ids for c in picture] for picture in first] == [[()], [()]]
        only = replace(RULES, never=everything - {4, 5}, stop=frozenset(), no_repeat_ngram=1)
        for picture in decode(ToyEngine(), prefixes(2), strategy, only):
            assert {*picture[0].token_ids} == {4, 5}
            assert picture[0].finish_reason == "length"


def test_no_pictures() -> None:
    assert decode(ToyEngine(), prefixes(1)[:0], Beam(), RULES) == []


def test_a_beam_that_holds_every_caption_finds_the_best() -> None:
    rules = Rules(prompt=(1,), stop=frozenset({2}), never=frozenset({0}), max_tokens=4)
    engine, prefix = ToyEngine(vocab_size=5), prefixes(1)
    ended = [(tokens, True) for length in range(4) for tokens in np.ndindex(*[5] * length)]
    full = [(tokens, False) for tokens in np.ndindex(5, 5, 5, 5)]
    scored = []
    for tokens, has_stop in ended + full:
        if not {*tokens} & {0, 2}:
            judge = rules if has_stop else replace(rules, stop=frozenset())
            total = score(engine, prefix, tuple(tokens), judge)
            scored.append((total / (len(tokens) + has_stop) ** 0.8, tuple(tokens)))
    best = [tokens for _, tokens in sorted(scored, reverse=True)[:10]]
    found = decode(engine, prefix, Beam(size=200, candidates=10, length_penalty=0.8), rules)
    assert [caption.token_ids for caption in found[0]] == best


def test_the_seed_alone_decides_a_sample() -> None:
    engine, prefix = ToyEngine(), prefixes(3)
    results = [decode(engine, prefix, Sample(seed=seed), RULES) for seed in (0, 0, 1, 2)]
    assert results[0] == results[1]
    assert len({tuple(c[0].token_ids for c in result) for result in results}) == 3


def test_temperature_matters() -> None:
    prefix = prefixes(20)
    cold, warm, hot = (
        np.mean(
            [c[0].mean_logprob for c in decode(ToyEngine(), prefix, Sample(temperature=t), RULES)]
        )
        for t in (0.2, 1.0, 5.0)
    )
    assert cold > warm > hot
    almost_greedy = decode(ToyEngine(), prefix, Sample(temperature=1e-4), RULES)
    greedy = decode(ToyEngine(), prefix, Greedy(), RULES)
    assert [c[0].token_ids for c in almost_greedy] == [c[0].token_ids for c in greedy]


def test_few_possible_captions_are_found_all_without_repeats() -> None:
    rules = Rules(stop=frozenset({2}), never=frozenset(range(6, 30)) | {0, 1}, max_tokens=1)
    captions = decode(ToyEngine(), prefixes(2), Sample(candidates=10, temperature=3.0), rules)
    for picture in captions:
        assert len(picture) == len({caption.token_ids for caption in picture}) <= 4
        assert len(picture) >= 3


@pytest.mark.parametrize(
    ("strategy", "named"),
    [
        (Beam(size=0), "beam size is 0"),
        (Beam(size=2, candidates=3), "candidates is 3"),
        (Beam(size=4, groups=3), "groups is 3"),
        (Beam(diversity=-1.0, groups=5), "diversity is -1.0"),
        (Beam(diversity=0.5), "diversity is 0.5 with one group"),
        (Beam(rule="mean-with-stop", length_penalty=2.0), "length_penalty"),
        (Beam(rule="sum"), 'rule is "sum"'),  # type: ignore[arg-type]
        (Beam(rerank="best"), 'rerank is "best"'),  # type: ignore[arg-type]
        (Sample(temperature=0.0), "temperature is 0.0"),
        (Sample(temperature=float("nan")), "temperature is nan"),
        (Sample(top_p=0.0), "top_p is 0.0"),
        (Sample(top_p=1.1), "top_p is 1.1"),
        (Sample(top_k=-1), "top_k is -1"),
        (Sample(min_p=2.0), "min_p is 2.0"),
        (Sample(candidates=0), "candidates is 0"),
        (Sample(seed=-1), "seed is -1"),
        (TopN(schedule=((3, 4), (3, 2))), "schedule is"),
        (TopN(schedule=((3, 0),)), "schedule is"),
        (TopN(exponent=0.0), "exponent is 0.0"),
        (Contrastive(alpha=1.5), "alpha is 1.5"),
        (Contrastive(k=0), "k is 0"),
    ],
    ids=str,
)
def test_a_strategy_that_cannot_be_run_is_one_line(strategy: Strategy, named: str) -> None:
    for run in (decode, lambda *args: list(stream(*args))):
        with pytest.raises(ConfigError) as caught:
            run(ToyEngine(), prefixes(1), strategy, RULES)
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"min_tokens": 10}, "min_tokens is 10"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"forbidden": ((),)}, "forbidden word has no tokens"),
        ({"forbidden": ((4, 30),)}, "token 30"),
        ({"stop": frozenset({-1})}, "token -1"),
    ],
    ids=str,
)
def test_rules_that_cannot_be_kept_are_one_line(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        decode(ToyEngine(), prefixes(1), Greedy(), replace(RULES, **changes))
    assert "\n" not in str(caught.value)
