"""Frozen dataclasses that cross packages: strategies, limits and captions."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length"]
Rerank = Literal["none", "consensus", "match"]
BeamRule = Literal["power", "mean-with-stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What any strategy must keep to.

    `None` means "as the bundle says". Words and stop strings are text, encoded by the bundle's
    tokenizer. detail: how long captions are, for bundles that can be asked; "" is "normal".
    """

    min_tokens: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0
    forbidden_words: tuple[str, ...] = ()
    prompt: str = ""
    detail: Literal["", "short", "normal", "long"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """The likeliest token at every step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """Beam search.

    rule "power": a finished beam scores its summed log-probability divided by
    length ** length_penalty (the stop token counts), as `transformers` does.
    rule "mean-with-stop": finished and running beams compete at every step by mean
    log-probability, the stop token counted (ClipCap's `generate_beam`).
    groups > 1 is diverse beam search (Vijayakumar et al. 2018, Hamming diversity).
    rerank: what puts the captions found in order instead of their scores. "consensus": the one
    most like the others first. "match": the one first that the bundle's text tower finds closest
    to the picture.
    """

    size: int = 5
    candidates: int = 1
    length_penalty: float = 1.0
    rule: BeamRule = "power"
    groups: int = 1
    diversity: float = 0.0
    rerank: Rerank = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Sampling after temperature, top-k, top-p (Holtzman et al. 2020) and min-p filters.

    0 for top_k, 1 for top_p and 0 for min_p switch a filter off. The same seed, model and picture
    give the same caption, whatever else is in the batch.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    candidates: int = 1
    seed: int = 0
    rerank: Rerank = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopN:
    """Draw among the n likeliest tokens, n falling along the caption.

    `schedule` holds (last word number, n) pairs, words counted from 1; after the last pair n is 1.
    Probabilities are raised to `exponent` and renormalised before the draw.
    """

    schedule: tuple[tuple[int, int], ...] = ((3, 4), (6, 2))
    exponent: float = 5.0
    candidates: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrastive:
    """Contrastive search (Su et al. 2022, equation 5): among the k likeliest tokens the largest of
    (1 - alpha) * probability - alpha * (largest cosine to an earlier hidden state)."""

    alpha: float = 0.6
    k: int = 4


Strategy = Greedy | Beam | Sample | TopN | Contrastive


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One of several captions of a picture. `logprob` is natural, summed, stop token included."""

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprob: float
    mean_logprob: float
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How well a text fits a picture.

    cosine: between the two embeddings, -1 to 1. probability: that this text is the picture's,
    where one of the texts given is.
    """

    text: str
    cosine: float
    probability: float

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary, ready for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """The caption of a picture: the best candidate's fields, and all candidates, best first.

    After a prompt, `text` begins with it; tokens and log-probabilities are those added to it.
    `thumbnail` is a small JPEG that notebooks show beside the text, where one was made.
    """

    text: str
    language: str
    logprob: float
    mean_logprob: float
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    finish_reason: FinishReason
    thumbnail: bytes | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> Mapping[str, Any]:
        """Plain dictionaries and tuples, ready for `json.dumps`; without the thumbnail."""
        plain = asdict(self)
        del plain["thumbnail"]
        return plain

    def _repr_html_(self) -> str:
        text = html.escape(self.text)
        language = html.escape(self.language)
        image = ""
        if self.thumbnail is not None:
            data = base64.b64encode(self.thumbnail).decode("ascii")
            image = f'<img src="data:image/jpeg;base64,{data}" alt="{text}">'
        caption = f'<figcaption lang="{language}">{text}</figcaption>'
        return f'<figure style="display: inline-block; margin: 0">{image}{caption}</figure>'
