"""The metrics by name: what each makes of captions beside their photos' references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from capsmith.errors import ConfigError, DataError
from capsmith.evaluate.cider import cider_scores
from capsmith.evaluate.languages import tokenised
from capsmith.evaluate.lexical import bleu_from_statistics, bleu_statistics, rouge_l

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Captions:
    """Captions as they were written, beside the references of their photos, and their tokens.

    texts: n captions. photos: int64 (n,), the photo of each. references: each photo's captions by
    people. tokens, reference_tokens: the same tokenised, tokens joined by spaces.
    """

    texts: Sequence[str]
    photos: Ints
    references: Sequence[Sequence[str]]
    tokens: Sequence[str]
    reference_tokens: Sequence[Sequence[str]]

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        photos: Sequence[int] | Ints,
        references: Sequence[Sequence[str]],
        *,
        language: str,
    ) -> Captions:
        """Tokenise by the rule of the language; a photo may have several captions or none.

        Raises `DataError` where there is no caption, or a photo has no reference.
        """
        if not texts:
            raise DataError("no captions: nothing to score")
        for photo, sentences in enumerate(references):
            if not sentences:
                raise DataError(f"photo {photo} has no reference: give it one or leave it out")
        flat = iter(tokenised([text for group in references for text in group], language))
        return cls(
            texts=texts,
            photos=np.asarray(photos, np.int64),
            references=references,
            tokens=tokenised(texts, language),
            reference_tokens=[[next(flat) for _ in group] for group in references],
        )

    def own_references(self) -> list[Sequence[str]]:
        """The references beside each caption, n of them."""
        return [self.references[photo] for photo in self.photos]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric's scores.

    per_caption: float64 (n,). parts: float64 (n, k), whose sum over captions makes the score of a
    corpus by `whole`: (..., k) -> (...), which serves draws of a bootstrap as well.
    """

    per_caption: Floats
    parts: Floats
    whole: Callable[[Floats], Floats]

    @property
    def value(self) -> float:
        """The score of all captions."""
        return float(self.whole(self.parts.sum(axis=0)))


Scorer = Callable[[Captions], Mapping[str, Metric]]


def mean_of(per_caption: Floats, *, value: float | None = None) -> Metric:
    """A metric whose corpus score is the mean over captions.

    value: the score of the corpus where it is another number (METEOR adds up its counts); draws
    then move about it as those of the mean do.
    """
    shift = 0.0 if value is None else value - float(np.mean(per_caption))
    parts = np.stack([per_caption, np.ones(len(per_caption))], axis=1)
    return Metric(per_caption, parts, lambda sums: sums[..., 0] / sums[..., 1] + shift)


def _cider(captions: Captions) -> Mapping[str, Metric]:
    scores = cider_scores(captions.tokens, captions.reference_tokens, captions.photos)
    return {"CIDEr": mean_of(scores)}


def _plain_cider(captions: Captions) -> Mapping[str, Metric]:
    scores = cider_scores(
        captions.tokens, captions.reference_tokens, captions.photos, is_plain=True
    )
    return {"CIDEr, not D": mean_of(scores)}


def _bleu(captions: Captions) -> Mapping[str, Metric]:
    references = [captions.reference_tokens[photo] for photo in captions.photos]
    statistics = bleu_statistics(captions.tokens, references).astype(np.float64)
    scores = bleu_from_statistics(statistics)
    return {
        f"BLEU-{order + 1}": Metric(scores[:, order], statistics, _BleuOf(order))
        for order in range(scores.shape[1])
    }


@dataclass(frozen=True, slots=True)
class _BleuOf:
    order: int

    def __call__(self, sums: Floats) -> Floats:
        return bleu_from_statistics(sums)[..., self.order]


def _rouge_l(captions: Captions) -> Mapping[str, Metric]:
    references = [captions.reference_tokens[photo] for photo in captions.photos]
    return {"ROUGE-L": mean_of(rouge_l(captions.tokens, references))}


def _meteor(captions: Captions) -> Mapping[str, Metric]:
    from capsmith.evaluate.meteor import meteor

    found = meteor(captions.texts, captions.own_references())
    return {"METEOR": mean_of(found.per_photo, value=found.value)}


def spice_scorer(progress: Callable[[int, int], None] | None = None) -> Scorer:
    """SPICE, which tells `progress` how many captions are scored, and how many there are."""

    def score(captions: Captions) -> Mapping[str, Metric]:
        from capsmith.evaluate.spice import spice

        found = spice(captions.texts, captions.own_references(), progress=progress)
        return {"SPICE": mean_of(found.per_photo)}

    return score


SCORERS: Final[Mapping[str, Scorer]] = {
    "cider": _cider,
    "bleu": _bleu,
    "rouge-l": _rouge_l,
    "meteor": _meteor,
    "spice": spice_scorer(),
    "cider-plain": _plain_cider,
}
"""The metrics that need nothing but captions in words, in the order of tables."""
JAVA_ONLY: Final = ("meteor", "spice")
"""Those that run Java programs, which know English only."""

DEFAULT: Final = ("cider", "bleu", "rouge-l")


def choose_metrics(asked: str, names: Sequence[str]) -> tuple[str, ...]:
    """The metrics that a list of names, "default" or "all" asks for, in the order of `names`.

    Raises `ConfigError` for a name that is not one of them.
    """
    wanted = {name.strip().lower() for name in asked.split(",") if name.strip()}
    wanted |= set(DEFAULT) if "default" in wanted else set()
    wanted |= set(names) if "all" in wanted else set()
    unknown = sorted(wanted - {*names, "default", "all"})
    if unknown or not wanted:
        what = f"no metric {unknown[0]!r}" if unknown else "no metric in an empty list"
        raise ConfigError(f"--metrics: there is {what}; they are: default, all, {', '.join(names)}")
    return tuple(name for name in names if name in wanted)
