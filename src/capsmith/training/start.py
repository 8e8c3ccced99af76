"""Training that goes on from a captioner that is there: its parts, tokens and weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tokenizers

from capsmith.bundle import Bundle
from capsmith.errors import BundleError
from capsmith.models.caption_model import CaptionModel
from capsmith.models.encoder_names import EncoderSpec
from capsmith.models.graph_weights import load_weights
from capsmith.registry import open_bundle
from capsmith.training.config import Recipe
from capsmith.training.vocabulary import CaptionTokens

ARCHITECTURE = "architecture"
"""The fact of a bundle's provenance that says how its modules are built again, as JSON."""


@dataclass(frozen=True, slots=True)
class Start:
    """A bundle to go on from. Raises `BundleError` where it does not say how it is built."""

    bundle: Bundle

    def __post_init__(self) -> None:
        if ARCHITECTURE not in self.bundle.provenance:
            raise BundleError(
                f"{self.bundle.folder}: does not say how its parts are built, so that training"
                " cannot go on from it; train from a bundle that capsmith train made"
            )

    def complete(self, recipe: Recipe) -> Recipe:
        """The recipe with the bundle's encoder, mapper, language model and text rules."""
        encoder = EncoderSpec(family="shipped", name=str(self.bundle.folder))
        try:
            parts: dict[str, Any] = json.loads(self.bundle.provenance[ARCHITECTURE])
            return replace(
                recipe,
                encoder=encoder,
                text=self.bundle.text,
                language_text=self.bundle.language_text,
                **parts,
            )
        except (ValueError, TypeError) as error:
            raise BundleError(
                f"{self.bundle.folder}: how its parts are built cannot be read ({error}); train"
                " from another bundle"
            ) from None

    def tokens(self) -> CaptionTokens:
        """The bundle's tokens."""
        bundle = self.bundle
        text = (bundle.folder / "tokenizer.json").read_text(encoding="utf-8")
        model = bundle.language_model
        return CaptionTokens(
            tokenizer=tokenizers.Tokenizer.from_str(text),
            text=bundle.text,
            start=model.start_tokens,
            end=model.stop_tokens[0],
            never=model.never_tokens,
            spoken=bundle.languages,
            languages={name: ids[0] for name, ids in bundle.language_tokens.items()},
            details={name: ids[0] for name, ids in bundle.detail_tokens.items()},
            language_text=bundle.language_text,
        )

    def fill(self, model: CaptionModel) -> None:
        """Give the mapper and the language model the bundle's weights."""
        mapper = model.mapper
        load_weights(mapper, self.bundle.folder / "mapper.onnx", without=mapper.training_only)
        load_weights(model.language_model, self.bundle.folder / "decoder.onnx")


def open_start(recipe: Recipe, base: Path) -> Start | None:
    """The bundle that a recipe starts from, if any: a folder, a run's folder, or a name."""
    if not recipe.start:
        return None
    for folder in (base / recipe.start / "best", base / recipe.start):
        if (folder / "captioner.json").exists():
            return Start(open_bundle(folder))
    return Start(open_bundle(recipe.start))
