"""A captioner that is there, trained on someone's own photos, and whether it is better for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import capsmith
from capsmith.data.manifest import Manifest, Photo, write_manifest
from capsmith.data.sources import DataSource, read_data
from capsmith.data.watch import Watch, unwatched
from capsmith.errors import DataError
from capsmith.evaluate.languages import tokenised
from capsmith.evaluate.lexical import cider_d
from capsmith.evaluate.report import Report, report
from capsmith.evaluate.statistics import Interval, paired_difference
from capsmith.runtime.captioner import Captioner
from capsmith.training.config import DataConfig, Recipe, Training, Validation
from capsmith.training.run import train
from capsmith.training.start import Start
from capsmith.training.watching import Log

_FEWEST = 24
_TEST_SHARE, _VALIDATION_SHARE = 0.25, 0.15
_CAPTIONS_A_PHOTO = 5
_STEPS_PER_EPOCH_MOST, _EPOCHS = 60, 20


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores on photos that neither training nor the choice of the best step has seen.

    has_changed: False where no step of the training was better than the start.
    """

    before: Report
    after: Report
    difference: Interval
    photos: int
    has_changed: bool = True

    @property
    def verdict(self) -> str:
        """One line; what is not measurably better is never called so."""
        found = f"CIDEr {self.before.cider.value:.3f} -> {self.after.cider.value:.3f}"
        where = f"{self.difference.low:+.3f} to {self.difference.high:+.3f}"
        told = f"{found} on {self.photos} held-out photos; difference with 95 % confidence {where}"
        if not self.has_changed:
            return (
                "no measurable difference: on the photos that choose, no step was better than the"
                " start, and RUN/best is the captioner as it was"
            )
        if self.difference.low > 0:
            return f"better: {told}"
        if self.difference.high < 0:
            return f"worse, keep the old one: {told}"
        return f"no measurable difference: {told}"


def tune(
    sources: Sequence[DataSource],
    output: Path,
    *,
    model: str | None,
    base: Path | None,
    log: Log,
    watch: Watch = unwatched,
) -> Comparison:
    """Train `model` (default: the embedded captioner) on photos with captions into `output`.

    Photos that the data gives to the splits test and val are those; else a quarter is held out for
    the comparison, and a share of the rest chooses the best step. OUTPUT/best is the captioner.
    Raises `DataError` for too few photos, and what training raises.
    """
    captioner = capsmith.load(model)
    read = read_data(sources, base=base)
    language = language_of(read, captioner.languages)
    manifest = _dealt(read, language)
    output.mkdir(parents=True, exist_ok=True)
    write_manifest(manifest, output / "data.jsonl")
    test = manifest.of_split("test").photos
    recipe = _recipe(captioner, manifest)
    sizes = {name: len(manifest.of_split(name).photos) for name in ("train", "val", "test")}
    log("photos to " + ", ".join(f"{name} {count}" for name, count in sizes.items()))
    outcome = train(recipe, output, base=output.resolve(), log=log, watch=watch)
    found = compare(captioner, capsmith.load(outcome.bundle), test, language)
    return replace(found, has_changed=outcome.best_step > 0)


def compare(
    first: Captioner, second: Captioner, photos: Sequence[Photo], language: str
) -> Comparison:
    """Two captioners with their own decoding on the same photos, in a language of both."""
    references = [photo.texts(language) for photo in photos]
    tokens = [tokenised(lines, language) for lines in references]
    reports, scores = [], []
    for captioner in (first, second):
        pictures = [photo.source.picture() for photo in photos]
        made = captioner.caption_many(pictures, language=language)
        captions = [caption.text for caption in made]
        reports.append(report(captions, references, language=language))
        scores.append(cider_d(tokenised(captions, language), tokens).per_photo)
    before, after = reports
    return Comparison(before, after, paired_difference(*scores), len(photos))


def language_of(manifest: Manifest, spoken: Sequence[str]) -> str:
    """The captioner's first language that the photos have captions in, else its default."""
    found = manifest.languages
    return next((language for language in spoken if language in found), spoken[0])


def _dealt(manifest: Manifest, language: str) -> Manifest:
    """The manifest with three splits; photos without a caption in the language are left out."""
    photos = tuple(photo for photo in manifest.photos if photo.texts(language))
    if len(photos) < _FEWEST:
        raise DataError(
            f"{len(photos)} photos have captions in {language}; tuning needs {_FEWEST} at least,"
            " and some hundreds to show a difference"
        )
    for split, share in (("test", _TEST_SHARE), ("val", _VALIDATION_SHARE)):
        if not any(photo.split == split for photo in photos):
            free = [photo.id for photo in photos if photo.split not in ("test", "val")]
            drawn = sorted(
                free, key=lambda name: hashlib.sha256(f"{split} {name}".encode()).digest()
            )
            chosen = set(drawn[: round(share * len(free))])
            photos = tuple(replace(p, split=split) if p.id in chosen else p for p in photos)
    photos = tuple(p if p.split in ("test", "val") else replace(p, split="train") for p in photos)
    return Manifest(photos)


def _recipe(captioner: Captioner, manifest: Manifest) -> Recipe:
    """Good defaults for some hundred photos: small steps, the best of which is kept."""
    bundle = captioner.bundle
    count = len(manifest.of_split("train").photos)
    batch = min(16, max(4, count // 8))
    steps_per_epoch = min(_STEPS_PER_EPOCH_MOST, max(1, count // batch))
    recipe = Recipe(
        name=f"{bundle.name}-tuned",
        licence=bundle.licence,
        data=DataConfig(
            sources=(DataSource(path="data.jsonl"),),
            max_tokens=bundle.language_model.max_tokens,
        ),
        decoding=bundle.decoding,
        start=str(bundle.folder),
        training=Training(
            policy="mapper+lm",
            steps=_EPOCHS * steps_per_epoch,
            batch=batch,
            captions_a_photo=_CAPTIONS_A_PHOTO,
            learning_rate=1e-4,
            warmup=steps_per_epoch,
            schedule="cosine",
            weight_decay=0.01,
            label_smoothing=0.1,
            average=0.98,
        ),
        validation=Validation(every=4 * steps_per_epoch, photos=500, patience=2),
    )
    return Start(bundle).complete(recipe)
