"""Low-rank adaptation (Hu et al. 2022) of linear layers by `peft`, merged into them for export."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from capsmith.errors import ConfigError


def add_low_rank(module: nn.Module, *, rank: int, alpha: int) -> None:
    """Give every linear layer inside `module` a low-rank part; nothing else in it trains.

    Raises `ConfigError` where there is no linear layer, as in recurrent models.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear | Conv1D)
    }
    if not layers:
        raise ConfigError("LoRA needs linear layers, and this language model's blocks have none")
    # GPT-2's layers hold their weights input-first.
    is_input_first = all(isinstance(layer, Conv1D) for layer in layers.values())
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(layers), fan_in_fan_out=is_input_first
    )
    module.requires_grad_(False)
    inject_adapter_in_model(config, module)


def merge_low_rank(module: nn.Module) -> None:
    """Undo `add_low_rank`, keeping what was learned: parameters have their own names again."""
    from peft.tuners.lora import LoraLayer

    found: list[tuple[nn.Module, str, Any]] = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, LoraLayer)
    ]
    for parent, name, layer in found:
        layer.merge()
        setattr(parent, name, layer.get_base_layer())
