"""Self-critical sequence training: the captioner learns from the scores of its own samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from capsmith.evaluate.lexical import CiderD
from capsmith.models.prefix_captioner import PrefixCaptioner


def self_critical_loss(
    model: PrefixCaptioner,
    prefix: Tensor,
    reward: CiderD,
    photos: Sequence[int],
    *,
    start: int,
    stop: int,
    limit: int,
    samples: int = 5,
) -> tuple[Tensor, float]:
    """REINFORCE on CIDEr-D with the mean of a photo's other samples as baseline.

    Rennie et al. 2017, equation 8, with the leave-one-out baseline of Luo 2020 in the place of the
    greedy caption. prefix: float32 (B, P, width); photos: the reward's photo index of each row. The
    stop token counts as a word in samples and references alike, so that breaking off costs.
    Samples are drawn without dropout, as captions will be; their gradient is taken in the mode
    that the model is in: with dropout, it holds back from the training photos.
    Returns the loss and the mean reward (CIDEr-D, 1.0 is 100 points).
    """
    mode = model.training
    model.eval()
    tokens, real = model.generate(
        prefix.detach(), start=start, stop=stop, limit=limit, samples=samples
    )
    model.train(mode)
    owner = torch.arange(len(prefix)).repeat_interleave(samples)
    scores = torch.tensor(
        [
            reward.score(row[mask].tolist(), photos[index])
            for row, mask, index in zip(tokens[:, 1:], real, owner.tolist(), strict=True)
        ]
    ).view(-1, samples)
    baseline = (scores.sum(1, keepdim=True) - scores) / (samples - 1)
    advantage = (scores - baseline).flatten().to(prefix.device)
    hidden = model.language_model.hidden(tokens[:, :-1], prefix, owner.to(prefix.device))
    logits = model.language_model.head(hidden[real])
    chosen = -torch.nn.functional.cross_entropy(logits, tokens[:, 1:][real], reduction="none")
    weights = advantage[:, None].expand_as(real)[real]
    return -(weights * chosen).sum() / real.sum(), scores.mean().item()
