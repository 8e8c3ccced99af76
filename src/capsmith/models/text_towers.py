"""Text towers: captions as vectors in the space of an encoder's "embedding" (CapDec, search)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch

from capsmith.data.store import Floats
from capsmith.errors import ConfigError
from capsmith.models.hub_names import from_disk_or_hub, label_of
from capsmith.runtime.captioner import Captioner

_FAMILIES: Final = ("clip", "chinese_clip", "siglip")
_TEXTS_AT_ONCE: Final = 64


class TextTower(Protocol):
    """Makes vectors of texts."""

    name: str
    """Tells it from other towers."""

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embeddings float32 (n, d) of n texts, not normalised.

        A text that is longer than the tower reads is cut there.
        """
        ...


class PretrainedTextTower:
    """The text tower of a CLIP, Chinese-CLIP or SigLIP of `transformers`, with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str):
        self._model, self._tokenizer, self.name = model, tokenizer, name
        positions = model.config.text_config.max_position_embeddings
        self._max_tokens = min(positions, tokenizer.model_max_length)
        # SigLIP was trained on padding up to its full length, and sees it.
        self._padding = "max_length" if model.config.model_type == "siglip" else "longest"

    def embed(self, texts: Sequence[str]) -> Floats:
        """See `TextTower`."""
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                tokens = self._tokenizer(
                    list(texts[start : start + _TEXTS_AT_ONCE]),
                    padding=self._padding,
                    truncation=True,
                    max_length=self._max_tokens,
                    return_tensors="pt",
                )
                rows.append(self._model.get_text_features(**tokens).pooler_output.numpy())
        return np.concatenate(rows)


class BundledTextTower:
    """The text tower in a captioner's bundle. Raises `BundleError` where there is none."""

    def __init__(self, captioner: Captioner) -> None:
        self._captioner, self.name = captioner, f"shipped:{captioner.bundle.name}"
        captioner.embed_text([""])

    def embed(self, texts: Sequence[str]) -> Floats:
        """See `TextTower`; they have length 1."""
        return self._captioner.embed_text(texts)


def load_text_tower(name: str | Path) -> PretrainedTextTower:
    """The text tower of the model `name`, a hub's name or a folder, with its tokenizer.

    Raises `CheckpointError` where it cannot be had, `ConfigError` where the model has none.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config = from_disk_or_hub(AutoConfig.from_pretrained, name)
    if config.model_type not in _FAMILIES:
        raise ConfigError(
            f"{name}: a {config.model_type} has no text tower; the families with one are"
            f" {', '.join(_FAMILIES)}"
        )
    model = from_disk_or_hub(AutoModel.from_pretrained, name, dtype="float32")
    model.vision_model = None
    tokenizer = from_disk_or_hub(AutoTokenizer.from_pretrained, name)
    return PretrainedTextTower(model.eval(), tokenizer, name=f"transformers:{label_of(name)}")
