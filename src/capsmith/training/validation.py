"""How good the captioner is on photos it does not train on, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from capsmith.bundle import Description
from capsmith.data.manifest import Photo
from capsmith.errors import DataError
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
    """Captions and scores the photos of the validation split, each language by its own captions.

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

    @property
    def photos(self) -> Sequence[Photo]:
        """The photos that are looked at."""
        return self.examples.photos[: self.count]

    def features(self, model: CaptionModel, limit: int) -> Floats:
        """Features float32 (n, k, d) of the first photos."""
        size = min(limit, self.count)
        with torch.no_grad():
            made: Floats = features_of(model, self._inputs(model, 0, size)).cpu().numpy()
        return made

    @torch.no_grad()
    def score(self, model: CaptionModel) -> Score:
        """Loss and scores of a captioner in evaluation mode."""
        language = self.description.languages[0]
        rules, _ = resolve_limits(None, language, bundle=self.description, tokenizer=self.tokenizer)
        device = next(model.parameters()).device
        engine = TorchEngine(model.reader, vocab_size=model.reader.vocab_size, device=str(device))
        losses: list[tuple[float, int]] = []
        captions: list[str] = []
        for first in range(0, self.count, _BATCH):
            last = min(first + _BATCH, self.count)
            features = features_of(model, self._inputs(model, first, last))
            prefix = model.mapper(features).float().cpu().numpy()
            strategy = self.description.decoding.strategy
            for hypotheses in decode(engine, prefix, strategy, rules):
                captions.append(self.tokenizer.decode(hypotheses[0].token_ids))
            losses.append(self._loss(model, features, first, last))
        tokens = sum(count for _, count in losses)
        references = [
            [separated(text, language) for text in photo.texts(language)] for photo in self.photos
        ]
        return Score(
            loss=sum(loss * count for loss, count in losses) / max(1, tokens),
            report=report([separated(text, language) for text in captions], references),
            captions=tuple(captions),
        )

    def _inputs(self, model: CaptionModel, first: int, last: int) -> torch.Tensor:
        draw = Draw(tuple(range(first, last)), (), ())
        device = next(model.parameters()).device
        return self.inputs(self.examples, draw, (0,)).to(device)

    def _loss(
        self, model: CaptionModel, features: torch.Tensor, first: int, last: int
    ) -> tuple[float, int]:
        lines = [
            (i, self.examples.lines[k])
            for i in range(first, last)
            for k in self.examples.of_photo[i]
        ]
        tokens, mask = model.tensors(
            [line.ids for _, line in lines], languages=[line.language for _, line in lines]
        )
        owner = torch.tensor([index - first for index, _ in lines])
        loss = model.loss(
            features,
            tokens.to(features.device),
            mask.to(features.device),
            owner.to(features.device),
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
