"""How good the captioner is on photos it does not train on, while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from capsmith.bundle import Description
from capsmith.data.manifest import Photo
from capsmith.errors import DataError, DivergedError
from capsmith.evaluate.report import Report, report
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
    """What a validation finds: mean loss of a token, and scores by language, the default first.

    captions: in the default language, in photo order.
    """

    loss: float
    reports: Mapping[str, Report]
    captions: tuple[str, ...]

    @property
    def report(self) -> Report:
        """The scores in the default language."""
        return next(iter(self.reports.values()))

    @property
    def cider(self) -> float:
        """CIDEr-D, 1.0 is 100 points; of several languages the mean."""
        return float(np.mean([found.cider.value for found in self.reports.values()]))


class Validator:
    """Captions and scores photos of the validation split in several languages.

    languages: the default first. photos: at most so many in a language. Raises `DataError` where
    the split is empty, or has no caption in one of the languages.
    """

    def __init__(
        self,
        examples: Examples,
        inputs: Inputs,
        description: Description,
        tokenizer: Path,
        *,
        languages: Sequence[str],
        photos: int,
    ):
        if not examples.photos:
            raise DataError("no photo to validate on; name a split list, or set data.hold_out")
        self.examples, self.inputs, self.description = examples, inputs, description
        self.tokenizer = Tokenizer(tokenizer, description.text)
        self._chosen: dict[str, list[int]] = {}
        for language in languages:
            able = [i for i, photo in enumerate(examples.photos) if photo.texts(language)]
            if not able:
                raise DataError(
                    f"no photo of the split val has a caption in {language}; add some, or leave the"
                    " language out"
                )
            self._chosen[language] = able[:photos]

    @property
    def photos(self) -> Sequence[Photo]:
        """The photos that are captioned in the default language."""
        return [self.examples.photos[i] for i in self._default]

    @property
    def _default(self) -> list[int]:
        return next(iter(self._chosen.values()))

    def features(self, model: CaptionModel, limit: int) -> Floats:
        """Features float32 (n, k, d) of the first photos."""
        with torch.no_grad():
            inputs = self._inputs(model, self._default[:limit])
            made: Floats = features_of(model, inputs).cpu().numpy()
        return made

    @torch.no_grad()
    def score(self, model: CaptionModel) -> Score:
        """Loss and scores of a captioner in evaluation mode.

        Raises `DivergedError` where the loss is not a number.
        """
        losses: list[tuple[float, int]] = []
        reports: dict[str, Report] = {}
        captions: dict[str, list[str]] = {}
        for language, chosen in self._chosen.items():
            said = captions[language] = []
            for first in range(0, len(chosen), _BATCH):
                part = chosen[first : first + _BATCH]
                features = features_of(model, self._inputs(model, part))
                losses.append(self._loss(model, features, part, language))
                said += self._captions(model, features, language)
            references = [self.examples.photos[i].texts(language) for i in chosen]
            reports[language] = report(said, references, language=language)
        tokens = sum(count for _, count in losses)
        return Score(
            loss=sum(loss * count for loss, count in losses) / max(1, tokens),
            reports=reports,
            captions=tuple(next(iter(captions.values()))),
        )

    def _captions(self, model: CaptionModel, features: torch.Tensor, language: str) -> list[str]:
        tokenizer = self.tokenizer.for_text(self.description.text_of(language))
        rules, _ = resolve_limits(None, language, bundle=self.description, tokenizer=tokenizer)
        engine = TorchEngine(
            model.reader, vocab_size=model.reader.vocab_size, device=str(features.device)
        )
        prefix = model.mapper(features).float().cpu().numpy()
        found = decode(engine, prefix, self.description.decoding.strategy, rules)
        return [tokenizer.decode(hypotheses[0].token_ids) for hypotheses in found]

    def _inputs(self, model: CaptionModel, photos: Sequence[int]) -> torch.Tensor:
        device = next(model.parameters()).device
        return self.inputs(self.examples, Draw(tuple(photos), (), ()), (0,)).to(device)

    def _loss(
        self, model: CaptionModel, features: torch.Tensor, photos: Sequence[int], language: str
    ) -> tuple[float, int]:
        """Mean loss of a token of the photos' captions, and how many tokens they have."""
        lines = [
            (row, self.examples.lines[k])
            for row, photo in enumerate(photos)
            for k in self.examples.of_photo[photo]
            if self.examples.lines[k].language == language
        ]
        tokens, mask = model.tensors(
            [line.ids for _, line in lines],
            languages=[language] * len(lines),
            details=[line.detail for _, line in lines],
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
