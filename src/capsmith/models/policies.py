"""What trains, by name."""

from __future__ import annotations

import copy
from typing import Literal, get_args

from torch import nn

from capsmith.errors import ConfigError
from capsmith.models.caption_model import CaptionModel
from capsmith.models.lora import add_low_rank, merge_low_rank

Policy = Literal["mapper", "mapper+lm", "mapper+outer-blocks", "mapper+lora", "all"]
"""What trains.

mapper               the mapper alone (ClipCap's prefix-only)
mapper+lm            the mapper and the whole language model
mapper+outer-blocks  of the language model all but its middle blocks: embeddings, first and last
                     block, last norm (CLIPxGPT)
mapper+lora          of the language model's blocks low-rank parts of their linear layers; export
                     after `finished`
all                  the encoder too
"""


def apply_policy(model: CaptionModel, policy: Policy, *, rank: int = 8, alpha: int = 16) -> None:
    """Let exactly what `policy` names train; rank and alpha are those of "mapper+lora", which is
    applied once a model.

    A frozen parameter gets no gradient, and a part of which all is frozen no memory for one, save
    what gradients of the mapper pass through on their way. Raises `ConfigError` for another name.
    """
    if policy not in get_args(Policy):
        raise ConfigError(f'"{policy}" is no policy; use one of {", ".join(get_args(Policy))}')
    model.requires_grad_(policy == "all")
    model.mapper.requires_grad_(True)
    blocks = model.reader.blocks
    if policy in ("mapper+lm", "mapper+outer-blocks"):
        model.language_model.requires_grad_(True)
    if policy == "mapper+outer-blocks":
        for block in blocks[1:-1]:
            block.requires_grad_(False)
    if policy == "mapper+lora":
        add_low_rank(blocks, rank=rank, alpha=alpha)
    model.train(model.training)


def finished(model: CaptionModel) -> CaptionModel:
    """A copy of plain modules in evaluation mode, ready for export: low-rank parts are merged."""
    copied = copy.deepcopy(model)
    merge_low_rank(copied.language_model)
    return copied.eval()


def trainable_names(module: nn.Module) -> set[str]:
    """Names of the parameters that train."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}
