"""Every kind of language model at toy size, with weights large enough that captions differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from capsmith.models.gpt2 import GPT2, GPT2Config
from capsmith.models.language_models import CrossAttentionConfig, CrossAttentionDecoder
from capsmith.models.llama import Llama, LlamaConfig
from capsmith.models.recurrent import RecurrentConfig, RecurrentModel

WORDS, WIDTH, ROWS = 71, 64, 3
START, END = 0, 1

KINDS = ("gpt2", "llama", "lstm", "gru", "cross-attention")


def language_model(kind: str, *, seed: int = 0, **sizes: Any) -> nn.Module:
    """The toy of this kind: prefix vectors of `WIDTH`, `WORDS` tokens."""
    torch.manual_seed(seed)
    model: nn.Module
    if kind == "gpt2":
        config = {"positions": 32, "width": WIDTH, "layers": 2, "heads": 4}
        model = GPT2(GPT2Config(vocab_size=WORDS, **config | sizes))
    elif kind == "llama":
        config = {"positions": 32, "width": WIDTH, "layers": 2, "heads": 4, "key_value_heads": 2}
        config |= {"feed_width": 96, "has_attention_bias": True, "is_tied": False}
        model = Llama(LlamaConfig(vocab_size=WORDS, **config | sizes))
    elif kind == "lstm":
        config = {"width": WIDTH, "hidden": 48, "layers": 2}
        model = RecurrentModel(RecurrentConfig(vocab_size=WORDS, **config | sizes))
    elif kind == "gru":
        config = {"cell": "gru", "image": "initial-state", "width": WIDTH, "hidden": 48}
        model = RecurrentModel(RecurrentConfig(vocab_size=WORDS, **config | sizes))
    else:
        config = {"width": WIDTH, "layers": 2, "heads": 4, "positions": 32, "dropout": 0.0}
        model = CrossAttentionDecoder(CrossAttentionConfig(vocab_size=WORDS, **config | sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "norm" not in name:
                parameter.normal_(std=0.3)
    return model.eval()


def prefixes(count: int, *, seed: int = 1) -> torch.Tensor:
    """Prefixes float32 (count, ROWS, WIDTH)."""
    return torch.randn(count, ROWS, WIDTH, generator=torch.Generator().manual_seed(seed))
