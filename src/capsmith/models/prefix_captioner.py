"""A whole captioner: encoder, mapper and language model as one module."""

from __future__ import annotations

import torch
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
        tags: int = 0,
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

    @torch.no_grad()
    def generate(
        self, prefix: Tensor, *, start: int, stop: int, limit: int, samples: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Greedy captions (samples = 0) or `samples` drawn captions of each prefix.

        Returns tokens int64 (N, T), the start token first and `stop` repeated after the end, and
        bool (N, T - 1), True for every drawn token up to and including the stop token. N is B, or
        B * samples with the samples of one prefix side by side.
        """
        model = self.language_model
        states: tuple[Tensor, ...] = tuple(
            prefix.new_zeros(len(prefix), *(n if isinstance(n, int) else 0 for n in spec.shape))
            for spec in model.state_spec()
        )
        parents = torch.arange(len(prefix), device=prefix.device)
        tokens, fed = torch.full_like(parents, start), prefix
        spread = parents.repeat_interleave(max(samples, 1))
        alive = torch.ones_like(spread, dtype=torch.bool)
        drawn, real = [torch.full_like(spread, start)], []
        for step in range(limit):
            _, best, logits, _, *following = model(tokens[:, None], fed, parents, 1, *states)
            if step == 0:  # from here on every sample has a row of its own
                logits, best = logits[spread], best[spread]
            tokens = logits.softmax(1).multinomial(1)[:, 0] if samples else best[:, 0]
            tokens = torch.where(alive, tokens, stop)
            real.append(alive)
            drawn.append(tokens)
            alive = alive & (tokens != stop)
            if not alive.any():
                break
            parents = spread if step == 0 else torch.arange(len(spread), device=prefix.device)
            states, fed = tuple(following), prefix.new_zeros(len(spread), 0, prefix.shape[2])
        return torch.stack(drawn, 1), torch.stack(real, 1)
