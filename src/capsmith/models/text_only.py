"""Training without photos (CapDec, Nukrai et al. 2022): noisy embeddings of captions as features.

Where an encoder has a text tower, a caption's own embedding stands for its photo's; noise bridges
what lies between the two. At captioning time the photo's embedding takes its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from capsmith.data.manifest import Manifest
from capsmith.errors import DataError
from capsmith.models.text_towers import TextTower

Noise = Literal["gaussian", "ball"]
"""gaussian: every coordinate normal with the variance; ball: a point drawn evenly from the ball
whose squared radius is the variance."""


def with_noise(
    embeddings: Tensor,
    *,
    variance: float,
    noise: Noise = "gaussian",
    offset: Tensor | None = None,
    is_normalised_first: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Embeddings float32 (N, d) with noise, one draw a row, of length 1 at the end.

    offset: float32 (d,) or (1, d), the step from texts to photos, added after the noise. Variance
    0 gives the embeddings as they are. The argument is not changed.
    """
    if variance == 0:
        return embeddings
    base = F.normalize(embeddings, dim=1) if is_normalised_first else embeddings
    device = embeddings.device
    drawn = torch.randn(embeddings.shape, generator=generator, device=device)
    if noise == "ball":
        lengths = torch.rand(len(embeddings), generator=generator, device=device)
        lengths = lengths ** (1 / embeddings.shape[1])
        drawn = F.normalize(drawn, dim=1) * lengths[:, None]
    noisy = base + drawn * variance**0.5
    return F.normalize(noisy if offset is None else noisy + offset, dim=1)


def estimate_variance(captions: Sequence[Tensor]) -> float:
    """A variance for `with_noise` from a few photos' captions, as CapDec's paper takes it: the mean
    largest coordinate of the difference between two captions of one photo.

    captions: for each photo the text embeddings float32 (captions, d) of its captions, at least two
    for one of them. Raises `DataError` where there is no pair.
    """
    distances = []
    for texts in captions:
        unit = F.normalize(texts, dim=1)
        first, second = torch.triu_indices(len(unit), len(unit), offset=1)
        distances.append((unit[first] - unit[second]).abs().amax(1))
    if not sum(map(len, distances)):
        raise DataError("no photo has two captions, and the noise is estimated from such pairs")
    return torch.cat(distances).mean().item()


def caption_groups(manifest: Manifest, *, photos: int) -> list[list[str]]:
    """Captions that say the same: those of one photo in one language, two or more.

    At most so many groups, evenly spaced in the data. Raises `DataError` where there is none.
    """
    groups = []
    for photo in manifest.photos:
        by_language: defaultdict[str, list[str]] = defaultdict(list)
        for caption in photo.captions:
            by_language[caption.language].append(caption.text)
        groups += [texts for texts in by_language.values() if len(texts) > 1]
    if not groups:
        raise DataError("no photo has two captions, and the noise is estimated from such pairs")
    step = max(1, len(groups) // photos)
    return groups[::step][:photos]


def estimate_caption_noise(groups: Sequence[Sequence[str]], tower: TextTower) -> float:
    """`estimate_variance` of groups of captions, as `caption_groups` gives them."""
    embedded = torch.from_numpy(tower.embed([text for group in groups for text in group]))
    return estimate_variance(torch.split(embedded, [len(group) for group in groups]))


def modality_offset(images: Tensor, texts: Tensor) -> Tensor:
    """The step float32 (d,) from the centre of texts (N, d) to that of photos (M, d)."""
    return F.normalize(images, dim=1).mean(0) - F.normalize(texts, dim=1).mean(0)
