"""A whole captioner: encoder, mapper and language model as one module."""

from __future__ import annotations

from torch import Tensor, nn

from capsmith.models.encoders import EfficientNetLite
from capsmith.models.language_models import CrossAttentionDecoder
from capsmith.models.mappers import HintedGridMapper


class PrefixCaptioner(nn.Module):
    """Captions from an encoder's intermediate feature maps.

    depth: how many encoder blocks are frozen; the maps that they give are what a store holds.
    tags: how many words `tag` tells from the mean vector; it serves training alone (Wu et al. 2016
    caption from such attributes) and is not exported.
    """

    def __init__(
        self,
        encoder: EfficientNetLite,
        mapper: HintedGridMapper,
        language_model: CrossAttentionDecoder,
        depth: int,
        tags: int,
    ):
        super().__init__()
        self.encoder, self.mapper, self.language_model = encoder, mapper, language_model
        self.depth = depth
        self.tag = nn.Linear(mapper.project.in_features, tags)
        nn.init.constant_(self.tag.bias, -4.0)  # most words are in few captions
        mapper.classifier.load_state_dict(encoder.classifier.state_dict())
        frozen = [encoder.stem, *encoder.blocks[:depth], encoder.classifier]
        for module in frozen:
            module.requires_grad_(False)

    def prefix(self, maps: Tensor) -> Tensor:
        """Prefix (B, P, width) of feature maps (B, C, h, w)."""
        prefix: Tensor = self.mapper(self.encoder.tail(maps, self.depth))
        return prefix
