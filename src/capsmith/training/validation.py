"""How good the captioner is on photos it does not train on, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from capsmith.bundle import Description
from capsmith.data.manifest import Photo
from capsmith.errors import DataError, DivergedError
from capsmith.evaluate.report import Report, report
from capsmith.evaluate.tokenize import separated
from capsmith.models.caption_model import CaptionModel
from capsmith.models.engine import TorchEngine
from capsmith.runtime.constraints import resolve_limits
from capsmith.runtime.decoding import decode
from capsmith.runtime.engine import Floats
from capsmith.runtime.tokenizer import Tokenizer
from capsmith.training.batches import Inputs
from capsmith.training.examples import Draw, Examples
from capsmith.training.objectives import features_of

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Score:
    """What a validation finds: mean loss of a token, scores, and the captions in photo order."""

    loss: float
    report: Report
    captions: tuple[str, ...]

    @property
    def cider(self) -> float:
        """CIDEr-D, 1.0 is 100 points."""
        return self.report.cider.value


class Validator:
    """Captions and scores photos of the validation split, each in the first of the captioner's
    languages that it has captions in.

    Raises `DataError` where the split is empty.
    """

    def __init__(
        self,
        examples: Examples,
        inputs: Inputs,
        description: Description,
        tokenizer: Path,
        *,
        photos: int,
    ):
        if not examples.photos:
            raise DataError("no photo to validate on; name a split list, or set data.hold_out")
        self.examples, self.inputs, self.description = examples, inputs, description
        self.tokenizer = Tokenizer(tokenizer, description.text)
        self.count = min(photos, len(examples.photos))
        self._languages = [_language(photo, description.languages) for photo in self.photos]

    @property
    def photos(self) -> Sequence[Photo]:
        """The photos that are looked at."""
        return self.examples.photos[: self.count]

    def features(self, model: CaptionModel, limit: int) -> Floats:
        """Features float32 (n, k, d) of the first photos."""
        size = min(limit, self.count)
        with torch.no_grad():
            made: Floats = features_of(model, self._inputs(model, range(size))).cpu().numpy()
        return made

    @torch.no_grad()
    def score(self, model: CaptionModel) -> Score:
        """Loss and scores of a captioner in evaluation mode.

        Raises `DivergedError` where the loss is not a number.
        """
        losses: list[tuple[float, int]] = []
        captions: dict[int, str] = {}
        for language in dict.fromkeys(self._languages):
            chosen = [i for i in range(self.count) if self._languages[i] == language]
            for first in range(0, len(chosen), _BATCH):
                part = chosen[first : first + _BATCH]
                features = features_of(model, self._inputs(model, part))
                losses.append(self._loss(model, features, part))
                found = self._captions(model, features, language)
                captions |= dict(zip(part, found, strict=True))
        texts = [captions[i] for i in range(self.count)]
        spoken = list(zip(self._languages, texts, self.photos, strict=True))
        tokens = sum(count for _, count in losses)
        return Score(
            loss=sum(loss * count for loss, count in losses) / max(1, tokens),
            report=report(
                [separated(text, language) for language, text, _ in spoken],
                [[separated(t, language) for t in p.texts(language)] for language, _, p in spoken],
            ),
            captions=tuple(texts),
        )

    def _captions(self, model: CaptionModel, features: torch.Tensor, language: str) -> list[str]:
        rules, _ = resolve_limits(None, language, bundle=self.description, tokenizer=self.tokenizer)
        engine = TorchEngine(
            model.reader, vocab_size=model.reader.vocab_size, device=str(features.device)
        )
        prefix = model.mapper(features).float().cpu().numpy()
        found = decode(engine, prefix, self.description.decoding.strategy, rules)
        return [self.tokenizer.decode(hypotheses[0].token_ids) for hypotheses in found]

    def _inputs(self, model: CaptionModel, photos: Sequence[int]) -> torch.Tensor:
        device = next(model.parameters()).device
        return self.inputs(self.examples, Draw(tuple(photos), (), ()), (0,)).to(device)

    def _loss(
        self, model: CaptionModel, features: torch.Tensor, photos: Sequence[int]
    ) -> tuple[float, int]:
        """Mean loss of a token of the photos' captions, and how many tokens they have."""
        lines = [
            (row, self.examples.lines[k])
            for row, photo in enumerate(photos)
            for k in self.examples.of_photo[photo]
        ]
        tokens, mask = model.tensors(
            [line.ids for _, line in lines], languages=[line.language for _, line in lines]
        )
        loss = model.loss(
            features,
            tokens.to(features.device),
            mask.to(features.device),
            torch.tensor([row for row, _ in lines]).to(features.device),
        )
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss of validation photos is {loss.item()}; lower training.learning_rate"
            )
        return float(loss), int(mask.sum()) - len(lines) * model.prompt_length


def _language(photo: Photo, languages: Sequence[str]) -> str:
    """The first of the captioner's languages that the photo has captions in."""
    return next((name for name in languages if photo.texts(name)), languages[0])


def collapse(captions: Sequence[str]) -> str | None:
    """A warning where nearly all photos get one caption; None where they do not."""
    if len(captions) < 2:
        return None
    texts, counts = np.unique(captions, return_counts=True)
    share = counts.max() / len(captions)
    if share < 0.5:
        return None
    return (
        f"{share:.0%} of the captions are {str(texts[counts.argmax()])!r}: the captioner does not"
        " look at the photos; train longer, or look whether captions and photos belong together"
        " (capsmith data check)"
    )
