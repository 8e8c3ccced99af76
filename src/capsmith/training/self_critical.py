"""Self-critical sequence training: the captioner learns from the scores of its own captions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from capsmith.evaluate.lexical import CiderD
from capsmith.models.caption_model import CaptionModel
from capsmith.models.engine import TorchEngine
from capsmith.runtime.decoding import decode
from capsmith.runtime.rules import Rules
from capsmith.types import Beam


def self_critical_loss(
    model: CaptionModel,
    prefix: Tensor,
    reward: CiderD,
    photos: Sequence[int],
    *,
    rules: Rules,
    captions: int = 5,
    among: Tensor | None = None,
) -> tuple[Tensor, float]:
    """REINFORCE on CIDEr-D over a photo's beams, with their mean as baseline.

    Rennie et al. 2017, equation 8, with the captions of a beam search in the place of samples and
    their mean in the place of the greedy caption (Cornia et al. 2020, section 3.3): what is learned
    is to rank first what scores best, and not to avoid what no search would find. prefix: float32
    (B, P, width); photos: the reward's photo index of each row; rules: how captions are searched,
    with one stop token, which counts as a word in captions and references alike, so that breaking
    off costs; among: int64 (n,), the tokens that the search keeps to, by default all. The search
    sees no dropout; the gradient is taken in the mode that the model is in.
    Returns the loss and the mean reward (CIDEr-D, 1.0 is 100 points).
    """
    mode = model.training
    model.eval()
    rows, owner = searched(model, prefix, rules, captions)
    model.train(mode)
    device = prefix.device
    scores = torch.tensor(
        [reward.score(row, photos[o]) for row, o in zip(rows, owner, strict=True)]
    )
    of_photo = torch.tensor(owner)
    advantage = advantages(scores, of_photo)

    tokens = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([*rules.prompt, *row]) for row in rows], batch_first=True, padding_value=-100
    ).to(device)
    targets = tokens[:, len(rules.prompt) :]
    read = tokens[:, :-1].clamp(min=0)
    hidden = model.reader.hidden(read, prefix, of_photo.to(device))
    is_real = targets != -100
    read = hidden[:, -targets.shape[1] :][is_real]
    logits, told = model.told_apart(read, targets[is_real], among)
    losses = torch.nn.functional.cross_entropy(logits, told, reduction="none")
    weights = advantage.to(device)[:, None].expand_as(is_real)[is_real]
    return (weights * losses).sum() / is_real.sum(), scores.mean().item()


def advantages(scores: Tensor, photos: Tensor) -> Tensor:
    """How much better a caption is than its photo's others, in their standard deviations.

    scores: float32 (N,); photos: int64 (N,), the photo of each. Rare words make rewards large:
    without the division a data set of many rare words outweighs the others (Shao et al. 2024,
    section 4.1, divide alike). Spreads below 0.05 count as 0.05, so that noise is not enlarged.
    """
    count = torch.bincount(photos)
    mean = torch.zeros(len(count)).index_add(0, photos, scores) / count
    off = scores - mean[photos]
    spread = (torch.zeros(len(count)).index_add(0, photos, off**2) / count).sqrt()
    return off / spread.clamp(min=0.05)[photos]


@torch.no_grad()
def searched(
    model: CaptionModel, prefix: Tensor, rules: Rules, captions: int
) -> tuple[list[list[int]], list[int]]:
    """Captions of each prefix by beam search, stop token last, and the row of each one's prefix."""
    engine = TorchEngine(
        model.reader, vocab_size=model.reader.vocab_size, device=str(prefix.device)
    )
    beam = Beam(size=captions, candidates=captions)
    found = decode(engine, prefix.detach().float().cpu().numpy(), beam, rules)
    stop = sorted(rules.stop)[:1]
    rows = [
        [*caption.token_ids, *(stop if caption.finish_reason == "stop" else [])]
        for caption in chain(*found)
    ]
    return rows, [index for index, captions in enumerate(found) for _ in captions]
