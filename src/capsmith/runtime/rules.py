"""What a decoding run must keep to, as token ids, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from capsmith.errors import ConfigError
from capsmith.types import Beam, Contrastive, FinishReason, Greedy, Sample, Strategy, TopN


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`Limits` resolved to token ids.

    Lengths count new tokens: `min_tokens` without the stop token, `max_tokens` with it.
    `prompt` (start, language and prompt tokens) is read before the first new token, and counts as
    text for `forbidden`, `no_repeat_ngram` and `repetition_penalty`.
    """

    prompt: tuple[int, ...] = ()
    stop: frozenset[int] = field(default_factory=frozenset)
    never: frozenset[int] = field(default_factory=frozenset)
    forbidden: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0
    max_tokens: int = 30
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One decoded caption of a picture."""

    token_ids: tuple[int, ...]
    """The new tokens: neither the prompt nor the stop token."""
    logprob: float
    """The model's own natural log-probability of these tokens, stop token included, summed;
    penalties and temperatures do not enter it."""
    finish_reason: FinishReason
    """"stop" after a stop token; "length" where there was no further token: none was left, or
    none was allowed."""

    @property
    def mean_logprob(self) -> float:
        """`logprob` for each token, the stop token counted."""
        return self.logprob / max(1, len(self.token_ids) + (self.finish_reason == "stop"))


def check_rules(rules: Rules, vocab_size: int) -> None:
    """Raise `ConfigError` for limits that no caption can keep to."""
    _require(rules.max_tokens >= 1, f"max_tokens is {rules.max_tokens}; it must be at least 1")
    _require(
        0 <= rules.min_tokens <= rules.max_tokens,
        f"min_tokens is {rules.min_tokens}; it must be between 0 and max_tokens,"
        f" {rules.max_tokens}",
    )
    _require(
        rules.no_repeat_ngram >= 0,
        f"no_repeat_ngram is {rules.no_repeat_ngram}; use 0 (off) or a length in tokens",
    )
    _require(
        rules.repetition_penalty > 0,
        f"repetition_penalty is {rules.repetition_penalty}; it must be above 0 (1 is off)",
    )
    _require(all(rules.forbidden), "a forbidden word has no tokens; remove it")
    words = (token for word in rules.forbidden for token in word)
    for token in (*rules.prompt, *rules.stop, *rules.never, *words):
        _require(
            0 <= token < vocab_size,
            f"token {token} is outside the model's vocabulary of {vocab_size}",
        )


def check_strategy(strategy: Strategy) -> None:
    """Raise `ConfigError`, naming option and value, for a strategy that cannot be run."""
    if isinstance(strategy, Beam):
        _check_beam(strategy)
    elif isinstance(strategy, Sample):
        _check_sample(strategy)
    elif isinstance(strategy, TopN):
        _check_top_n(strategy)
    elif isinstance(strategy, Contrastive):
        _require(0 <= strategy.alpha <= 1, f"alpha is {strategy.alpha}; use 0 to 1")
        _require(strategy.k >= 1, f"k is {strategy.k}; contrastive search needs at least 1")
    else:
        name = type(strategy).__name__
        _require(
            isinstance(strategy, Greedy), f"a {name} is no strategy; use Beam(), Sample(), ..."
        )


def _check_beam(beam: Beam) -> None:
    _require(beam.size >= 1, f"beam size is {beam.size}; it must be at least 1")
    _require(
        1 <= beam.candidates <= beam.size,
        f"candidates is {beam.candidates}; a beam of size {beam.size} gives 1 to {beam.size}",
    )
    _require(
        beam.groups >= 1 and beam.size % beam.groups == 0,
        f"groups is {beam.groups}; it must divide the beam size, {beam.size}",
    )
    _require(beam.diversity >= 0, f"diversity is {beam.diversity}; it must not be negative")
    _require(
        beam.diversity == 0 or beam.groups > 1,
        f"diversity is {beam.diversity} with one group; it needs groups of 2 or more",
    )
    if beam.rule == "mean-with-stop":
        _require(
            beam.length_penalty == 1 and beam.groups == 1,
            'rule "mean-with-stop" has neither length_penalty nor groups; leave both at 1',
        )
    else:
        _require(beam.rule == "power", f'rule is "{beam.rule}"; use "power" or "mean-with-stop"')
    _check_rerank(beam.rerank)


def _check_sample(sample: Sample) -> None:
    _require(
        sample.temperature > 0,
        f"temperature is {sample.temperature}; it must be above 0 (Greedy() takes the likeliest)",
    )
    _require(sample.top_k >= 0, f"top_k is {sample.top_k}; use 0 (off) or a number of tokens")
    _require(0 < sample.top_p <= 1, f"top_p is {sample.top_p}; use above 0, up to 1 (off)")
    _require(0 <= sample.min_p <= 1, f"min_p is {sample.min_p}; use 0 (off) to 1")
    _check_draws(sample.candidates, sample.seed)
    _check_rerank(sample.rerank)


def _check_top_n(top_n: TopN) -> None:
    words = [word for word, _ in top_n.schedule]
    _require(
        all(word >= 1 and choices >= 1 for word, choices in top_n.schedule)
        and all(earlier < later for earlier, later in pairwise(words)),
        f"schedule is {top_n.schedule}; use (last word number, choices) pairs of rising numbers"
        " from 1 on",
    )
    _require(top_n.exponent > 0, f"exponent is {top_n.exponent}; it must be above 0")
    _check_draws(top_n.candidates, top_n.seed)


def _check_draws(candidates: int, seed: int) -> None:
    _require(candidates >= 1, f"candidates is {candidates}; it must be at least 1")
    _require(seed >= 0, f"seed is {seed}; it must not be negative")


def _check_rerank(rerank: str) -> None:
    _require(
        rerank in ("none", "consensus", "match"),
        f'rerank is "{rerank}"; use "none", "consensus" or "match"',
    )


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ConfigError(message)
