"""Small and large random GPT-2s, as `transformers` makes them and as our module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from capsmith.export.graphs import export_decoder
from capsmith.export.quantize import Precision
from capsmith.models.gpt2 import GPT2, load_gpt2


def random_gpt2(seed: int = 0, **sizes: Any) -> tuple[Any, GPT2]:
    """A `GPT2LMHeadModel` with random weights, biases and norms too, and our copy of it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, **sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model, load_gpt2(model.state_dict(), heads=model.config.n_head)


def tiny_gpt2(**sizes: Any) -> tuple[Any, GPT2]:
    """Two layers, 97 words; weights large enough that captions differ from picture to picture."""
    tiny = {"vocab_size": 97, "n_positions": 48, "n_embd": 64, "n_layer": 2, "n_head": 4}
    return random_gpt2(**(tiny | {"initializer_range": 0.3} | sizes))


def write_decoder(model: GPT2, folder: Path, precision: Precision = "float32") -> Path:
    """Export to `folder`, once."""
    path = folder / f"decoder-{precision}.onnx"
    if not path.exists():
        export_decoder(model, path, precision=precision)
    return path
