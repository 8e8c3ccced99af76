"""The towers that CLIPScore is measured with: a bundle's own, or another by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from capsmith.errors import ConfigError
from capsmith.evaluate.clipscore import clip_scores, ref_clip_scores
from capsmith.evaluate.metrics import Captions, Metric, Scorer, mean_of
from capsmith.runtime.captioner import Captioner
from capsmith.runtime.pictures import Picture, open_picture

Vectors = npt.NDArray[np.float32]

_PICTURES_AT_ONCE = 16


class Tower(Protocol):
    """Vectors of pictures and of captions in one space."""

    name: str

    def pictures(self, pictures: Sequence[Picture]) -> Vectors:
        """float32 (n, d); raises `ImageError` for a picture that cannot be read."""
        ...

    def captions(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, d)."""
        ...


class BundleTower:
    """The text tower inside a captioner's bundle. Raises `ConfigError` where it has none."""

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = captioner
        self.name = captioner.bundle.name
        if not captioner.bundle.has_text_tower:
            raise ConfigError(
                f"clipscore: {self.name} has no text tower; name a CLIP, for instance --tower"
                " transformers:openai/clip-vit-base-patch32"
            )

    def pictures(self, pictures: Sequence[Picture]) -> Vectors:
        """See `Tower`."""
        return self._captioner.embed(pictures)

    def captions(self, texts: Sequence[str]) -> Vectors:
        """See `Tower`."""
        return self._captioner.embed_text(texts)


class NamedTower:
    """A CLIP of a library, "FAMILY:NAME". Captions go in as CLIPScore's authors have them."""

    prefix = "A photo depicts "

    def __init__(self, name: str, weights: str, *, device: str) -> None:
        from capsmith.cli.data import training_extra

        with training_extra("eval --tower"):
            from capsmith.models.encoder_names import open_encoder, open_text_tower, parse_spec
            from capsmith.models.feature_encoder import TorchFeatureEncoder

        spec = parse_spec(name, weights=weights, output="embedding")
        self._texts = open_text_tower(spec)
        self._encoder = TorchFeatureEncoder(open_encoder(spec), device=device)
        self.name = self._texts.name

    def pictures(self, pictures: Sequence[Picture]) -> Vectors:
        """See `Tower`."""
        parts = []
        for first in range(0, len(pictures), _PICTURES_AT_ONCE):
            part = pictures[first : first + _PICTURES_AT_ONCE]
            opened: list[Any] = [open_picture(one, min_side=self._encoder.size) for one in part]
            parts.append(self._encoder.encode(opened)[:, 0])
        return np.concatenate(parts)

    def captions(self, texts: Sequence[str]) -> Vectors:
        """See `Tower`."""
        return self._texts.embed([self.prefix + text for text in texts])


def clip_scorer(tower: Tower, pictures: Sequence[Picture]) -> Scorer:
    """CLIPScore and RefCLIPScore by a tower; `pictures[i]` is photo i of what is scored.

    Pictures and references are embedded once, whatever is scored then.
    """
    of_pictures = tower.pictures(pictures)
    of_references: dict[str, npt.NDArray[np.float32]] = {}

    def score(captions: Captions) -> Mapping[str, Metric]:
        new = {t for group in captions.references for t in group if t not in of_references}
        ordered = sorted(new)
        of_references.update(zip(ordered, tower.captions(ordered), strict=True))
        mine, seen = tower.captions(captions.texts), of_pictures[captions.photos]
        groups = captions.own_references()
        references = np.stack([of_references[text] for group in groups for text in group])
        owners = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        # A caption without words says nothing of the photo, whatever its vector is.
        has_words = np.array([bool(text) for text in captions.texts])
        alone = clip_scores(seen, mine) * has_words
        with_references = ref_clip_scores(seen, mine, references, owners) * has_words
        return {
            f"CLIPScore ({tower.name})": mean_of(alone),
            f"RefCLIPScore ({tower.name})": mean_of(with_references),
        }

    return score
