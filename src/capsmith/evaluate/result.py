"""What an evaluation found, whole: the one thing that tables, JSON and the page are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from capsmith.evaluate.agreement import Agreement
from capsmith.evaluate.scores import Difference, Scores


@dataclass(frozen=True, slots=True)
class ScoredPhoto:
    """One photo: its id, its caption as it was written, and its references."""

    id: str
    caption: str
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Captions of photos, their scores, and what is to be known about them.

    captions_from, references_from: where they were read, or what made them. rule: how they were
    tokenised. compared_with: where the second captions were read; `differences` are theirs.
    judgements: how many captions people judged; `agreement` is each metric's with them.
    """

    captions_from: str
    references_from: str
    language: str
    rule: str
    photos: Sequence[ScoredPhoto]
    scores: Scores
    warnings: Sequence[str] = ()
    compared_with: str = ""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    judgements: int = 0
    agreement: Mapping[str, Agreement] = field(default_factory=dict)

    @property
    def references(self) -> int:
        """How many captions by people there are."""
        return sum(len(photo.references) for photo in self.photos)

    def worst_first(self) -> list[int]:
        """Rows of `photos`, lowest first by the first metric, of equals by the next, and so on."""
        columns = [score.per_caption for score in self.scores.metrics.values()]
        return [int(row) for row in np.lexsort(columns[::-1])]

    def to_dict(self) -> Mapping[str, Any]:
        """Plain dictionaries and lists, ready for `json.dumps`; a missing number is None."""
        plain: dict[str, Any] = {
            "captions": self.captions_from,
            "references": self.references_from,
            "language": self.language,
            "tokens": self.rule,
            "photos": len(self.photos),
            "reference_captions": self.references,
            "metrics": {name: asdict(s.interval) for name, s in self.scores.metrics.items()},
            "diversity": asdict(self.scores.diversity),
            "warnings": list(self.warnings),
            "per_photo": [self._photo(row) for row in range(len(self.photos))],
        }
        if self.compared_with:
            plain["compared_with"] = self.compared_with
            plain["differences"] = {
                name: asdict(found) | {"is_measurable": found.is_measurable}
                for name, found in self.differences.items()
            }
        if self.judgements:
            plain["judgements"] = self.judgements
            plain["agreement"] = {
                name: {key: _finite(value) for key, value in asdict(found).items()}
                for name, found in self.agreement.items()
            }
        return plain

    def _photo(self, row: int) -> dict[str, Any]:
        photo = self.photos[row]
        scores = {
            name: _finite(float(score.per_caption[row]))
            for name, score in self.scores.metrics.items()
        }
        return {"photo": photo.id, "caption": photo.caption, "scores": scores}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
