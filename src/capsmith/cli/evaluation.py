"""The work behind `capsmith eval`: captions joined with references, scored, compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capsmith.data.predictions import Judgement, Prediction, Predictions
from capsmith.data.references import References
from capsmith.errors import DataError
from capsmith.evaluate.join import PhotoNames
from capsmith.evaluate.languages import is_same, rule_of, tokenised
from capsmith.evaluate.metrics import Captions, Scorer
from capsmith.evaluate.result import Evaluation, ScoredPhoto
from capsmith.evaluate.scores import agree, compare, measure, per_caption


@dataclass(frozen=True, slots=True)
class Source:
    """Captions to score: what messages call them, and each with the photo that its file names."""

    name: str
    predictions: Predictions


@dataclass(slots=True)
class Joiner:
    """Joins captions with the photos of references; what it lets pass it puts in `warnings`."""

    references: References
    references_from: str
    allows_missing: bool
    warnings: list[str] = field(default_factory=list)

    def captions_of(self, source: Source) -> dict[str, str]:
        """Photo id -> caption.

        Raises `DataError` where a photo is captioned twice, a name may mean several photos, or,
        unless `allows_missing`, captions and photos do not match one to one.
        """
        names = PhotoNames((photo.id for photo in self.references.photos), self.references.aliases)
        found: dict[str, Prediction] = {}
        strangers: list[Prediction] = []
        for prediction in source.predictions.captions:
            photo = names.find(prediction.photo, prediction.place)
            if photo is None:
                strangers.append(prediction)
            elif photo in found:
                raise DataError(
                    f"{prediction.place}: {prediction.photo} has a caption already, at"
                    f" {found[photo].place}; keep one caption a photo"
                )
            else:
                found[photo] = prediction
        self._tell_missing(source, found, strangers)
        self._refuse_another_language(found.values())
        captions = {photo: prediction.caption for photo, prediction in found.items()}
        lines = tokenised(list(captions.values()), self.references.language)
        empty = [photo for photo, line in zip(captions, lines, strict=True) if not line]
        if empty:
            self.warnings.append(
                f"{source.name}: {_count(len(empty), 'caption')} without words, first {empty[0]};"
                " they score 0"
            )
        return captions

    def _refuse_another_language(self, predictions: Iterable[Prediction]) -> None:
        scored = self.references.language
        for prediction in predictions:
            if prediction.language and not is_same(prediction.language, scored):
                said = prediction.language
                raise DataError(
                    f"{prediction.place}: its language is {said}, that of {self.references_from}"
                    f" {scored}; give references in {said}, or --lang {said} where they are"
                )

    def _tell_missing(
        self, source: Source, found: Mapping[str, Prediction], strangers: Sequence[Prediction]
    ) -> None:
        photos, captions = self.references.photos, source.predictions.captions
        if not found:
            raise DataError(
                f"{source.name}: no photo is among those of {self.references_from}: here they are"
                f" called like {captions[0].photo}, there like {photos[0].id}; give references of"
                " these photos"
            )
        if strangers:
            first = strangers[0]
            self._tell(
                f"{source.name}: {len(strangers)} of {_count(len(captions), 'photo')} have no"
                f" reference in {self.references_from}, first {first.photo} ({first.place});"
                f" references are of photos like {photos[0].id}",
                "give references of all photos",
            )
        missing = [photo.id for photo in photos if photo.id not in found]
        if missing:
            failed = len(source.predictions.failed)
            because = f" ({failed} failed there)" if failed else ""
            self._tell(
                f"{source.name}: {len(missing)} of {_count(len(photos), 'photo')} of"
                f" {self.references_from} have no caption{because}, first {missing[0]}; captions"
                f" are of photos like {captions[0].photo}",
                "choose the --split that was captioned",
            )

    def _tell(self, what: str, advice: str) -> None:
        if not self.allows_missing:
            raise DataError(f"{what}; {advice}, or score the others with --allow-missing")
        self.warnings.append(f"{what}; left out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to score: captions joined with `photos`, ids in the references' order; `other` are those
    to compare with, and judgements are of photos by id."""

    first: Source
    captions: Mapping[str, str]
    other: Source | None
    other_captions: Mapping[str, str]
    photos: Sequence[str]
    judgements: Sequence[tuple[str, Judgement]]


def common_photos(joiner: Joiner, *sides: Mapping[str, str]) -> list[str]:
    """The photos that all sides caption, in the references' order; raises `DataError` for none."""
    photos = [
        photo.id for photo in joiner.references.photos if all(photo.id in side for side in sides)
    ]
    if not photos:
        raise DataError("the two sets of captions have no photo in common; give two of one set")
    return photos


def join_judgements(
    joiner: Joiner, judgements: Sequence[Judgement], photos: Sequence[str]
) -> list[tuple[str, Judgement]]:
    """Each judgement with the id of its photo, one of `photos`.

    Raises `DataError` where there is none, unless these may be missing.
    """
    aliases, known = joiner.references.aliases.items(), set(photos)
    names = PhotoNames(photos, {number: photo for number, photo in aliases if photo in known})
    found: list[tuple[str, Judgement]] = []
    strangers: list[Judgement] = []
    for judgement in judgements:
        photo = names.find(judgement.photo, judgement.place)
        if photo is None:
            strangers.append(judgement)
        else:
            found.append((photo, judgement))
    if strangers and not (joiner.allows_missing and found):
        raise DataError(
            f"{strangers[0].place}: {strangers[0].photo} is not among the photos that are scored,"
            f" which are called like {photos[0]}; {len(strangers)} of"
            f" {_count(len(judgements), 'judgement')} are of such photos; leave them out, or let"
            " --allow-missing do so"
        )
    if strangers:
        joiner.warnings.append(
            f"{_count(len(strangers), 'judgement')} of photos that are not scored, first"
            f" {strangers[0].photo} ({strangers[0].place}); left out"
        )
    return found


def evaluate(joiner: Joiner, wanted: Wanted, scorers: Mapping[str, Scorer]) -> Evaluation:
    """Score what is wanted. Scorers take photos by their places in `wanted.photos`."""
    language = joiner.references.language
    by_id = {photo.id: photo.captions for photo in joiner.references.photos}
    references = [by_id[photo] for photo in wanted.photos]
    places = {photo: place for place, photo in enumerate(wanted.photos)}

    def captions(of: Sequence[tuple[str, str]]) -> Captions:
        texts = [text for _, text in of]
        return Captions.of(texts, [places[p] for p, _ in of], references, language=language)

    scores = measure(captions([(p, wanted.captions[p]) for p in wanted.photos]), scorers)
    differences = {}
    if wanted.other is not None:
        others = captions([(p, wanted.other_captions[p]) for p in wanted.photos])
        differences = compare(scores, measure(others, scorers))
    judged = wanted.judgements
    agreement = {}
    if judged:
        texts = [(p, wanted.captions[p] if j.caption is None else j.caption) for p, j in judged]
        grades = np.array([j.score for _, j in judged], np.float64)
        agreement = agree(per_caption(captions(texts), scorers), grades)
    return Evaluation(
        captions_from=wanted.first.name,
        references_from=joiner.references_from,
        language=language,
        rule=rule_of(language),
        photos=[ScoredPhoto(p, wanted.captions[p], by_id[p]) for p in wanted.photos],
        scores=scores,
        warnings=tuple(joiner.warnings),
        compared_with=wanted.other.name if wanted.other else "",
        differences=differences,
        judgements=len(judged),
        agreement=agreement,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def where(path: Path, split: str) -> str:
    """What messages and tables call a file of references."""
    return f"{path.name or path} ({split})" if split else path.name or str(path)
