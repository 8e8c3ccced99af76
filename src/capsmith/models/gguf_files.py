"""Language models out of GGUF files, llama.cpp's format of one file for weights and tokens.

The `gguf` library reads the file and widens quantised weights to float32. Of architectures `llama`
is understood: Llama, SmolLM and others that call themselves so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capsmith.errors import CheckpointError
from capsmith.models.failures import first_sentence
from capsmith.models.llama import Llama, LlamaConfig
from capsmith.models.optional_library import optional_library

_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_BROKEN = (IndexError, KeyError, OSError, TypeError, UnicodeError, ValueError)


def is_gguf(name: str | Path) -> bool:
    """Whether a language model or tokenizer is named by a GGUF file."""
    return Path(name).suffix.lower() == ".gguf"


class GGUFFile:
    """A GGUF file that is open for reading.

    shapes: of the tensors by the file's names, (outputs, inputs). Raises `CheckpointError` where
    the file is missing, cut short or no GGUF, `ConfigError` where the library is missing.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(
                f"{path}: there is no such file; download it, or correct its path"
            )
        self.path = path
        self._library = optional_library("gguf", wanted_by=path.name, install="gguf")
        try:
            reader = _reader(self._library, path)
        except _BROKEN as error:
            raise self.unreadable(first_sentence(error)) from None
        self._fields: Mapping[str, Any] = reader.fields
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.shapes = {
            name: tuple(int(size) for size in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def unreadable(self, reason: str) -> CheckpointError:
        """The error for a file that breaks its format's rules."""
        return CheckpointError(
            f"{self.path}: cannot be read as GGUF ({reason}); download it again, or give another"
        )

    def refused(self, what: str, known: str) -> CheckpointError:
        """The error for a file that is sound and of a kind that is not understood."""
        return CheckpointError(f"{self.path}: has {what}; only {known} can be read")

    def has(self, key: str) -> bool:
        """Whether the file says anything of `key`."""
        return key in self._fields

    def text(self, key: str) -> str:
        """A fact that is text."""
        found = self._fact(key)
        if not isinstance(found, str):
            raise self.unreadable(f"{key} is no text")
        return found

    def number(self, key: str, otherwise: float | None = None) -> float:
        """A fact that is a number above 0; `otherwise` where the file does not say it."""
        if otherwise is not None and not self.has(key):
            return otherwise
        found = self._fact(key)
        if not isinstance(found, int | float) or not found > 0:
            raise self.unreadable(f"{key} is no number above 0")
        return found

    def entries(self, key: str) -> list[Any]:
        """A fact that is a list."""
        found = self._fact(key)
        if not isinstance(found, list):
            raise self.unreadable(f"{key} is no list")
        return found

    def weights(self, name: str) -> Tensor:
        """A tensor, float32."""
        tensor = self._tensors[name]
        try:
            wide = self._library.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise self.refused(
                f"weights of the type {kind}", "F32, F16, Q8_0 and the like"
            ) from None
        return torch.from_numpy(np.array(wide, dtype=np.float32))

    def _fact(self, key: str) -> Any:
        if key not in self._fields:
            raise self.unreadable(f"{key} is missing")
        try:
            return self._fields[key].contents()
        except _BROKEN as error:
            raise self.unreadable(f"{key}: {first_sentence(error)}") from None


def _reader(library: Any, path: Path) -> Any:
    """The library's reader over a plain array: a quarter of a million slices of a memory map, which
    the words and merges of a tokenizer take, are four times as slow."""

    class Reader(library.GGUFReader):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value.view(np.ndarray) if name == "data" else value)

    return Reader(path)


def gguf_sizes(file: GGUFFile) -> LlamaConfig:
    """Sizes of the language model in a file; its weights are not read.

    Raises `CheckpointError` for another architecture, and for what ours does not compute.
    """
    architecture = file.text("general.architecture")
    if architecture != "llama":
        raise file.refused(f"the architecture {architecture}", "llama")
    scaling = "llama.rope.scaling.type"
    if file.has(scaling) and file.text(scaling) != "none":
        raise file.refused(f"rotary positions scaled by {file.text(scaling)}", "plain ones")
    width = int(file.number("llama.embedding_length"))
    heads = int(file.number("llama.attention.head_count"))
    head_width = int(file.number("llama.attention.key_length", width // heads))
    turned = int(file.number("llama.rope.dimension_count", head_width))
    if turned != head_width:
        raise file.refused(f"heads of {head_width} numbers that turn {turned}", "whole heads")
    key_value_heads = int(file.number("llama.attention.head_count_kv", heads))
    if heads % key_value_heads or head_width % 2 or head_width == 0:
        raise file.unreadable(
            f"{heads} heads of {head_width} numbers cannot share {key_value_heads} keys"
        )
    if "token_embd.weight" not in file.shapes:
        raise file.unreadable("tensor token_embd.weight is missing")
    return LlamaConfig(
        vocab_size=file.shapes["token_embd.weight"][0],
        positions=int(file.number("llama.context_length")),
        width=width,
        layers=int(file.number("llama.block_count")),
        heads=heads,
        key_value_heads=key_value_heads,
        head_width=head_width,
        feed_width=int(file.number("llama.feed_forward_length")),
        rotary_base=file.number("llama.rope.freq_base", 10000.0),
        norm_epsilon=file.number("llama.attention.layer_norm_rms_epsilon"),
        is_tied="output.weight" not in file.shapes,
    )


def load_gguf(path: Path, *, dropout: float = 0.0) -> Llama:
    """The language model in a file, float32 and in evaluation mode.

    Raises `CheckpointError` as `gguf_sizes` does, and where tensors are missing, unknown or of
    other sizes than the file says.
    """
    file = GGUFFile(path)
    sizes = gguf_sizes(file)
    _refuse_other_tensors(file, sizes)
    model = Llama(replace(sizes, dropout=dropout))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            weight = file.weights(_name_in_file(name))
            if name.endswith("q_proj.weight"):
                weight = _halves(weight, sizes.heads)
            elif name.endswith("k_proj.weight"):
                weight = _halves(weight, sizes.key_value_heads)
            parameter.copy_(weight)
    return model.eval()


def _refuse_other_tensors(file: GGUFFile, sizes: LlamaConfig) -> None:
    last = f"blk.{sizes.layers - 1}.attn_norm.weight"
    if last not in file.shapes:  # before as many blocks are made as the file claims
        raise file.unreadable(f"{sizes.layers} blocks, but no tensor {last}")
    try:
        with torch.device("meta"):
            parameters = dict(Llama(sizes).named_parameters())
    except RuntimeError as error:
        raise file.unreadable(first_sentence(error)) from None
    expected = {_name_in_file(name): tuple(weight.shape) for name, weight in parameters.items()}
    strange = sorted(file.shapes.keys() - expected.keys())
    if strange:
        raise file.refused(f"the tensor {strange[0]}", "models without it")
    for name, shape in expected.items():
        if file.shapes.get(name) != shape:
            found = file.shapes.get(name, "missing")
            raise file.unreadable(f"tensor {name} is {found}, not {shape}")


def _name_in_file(name: str) -> str:
    """The file's name for a parameter: layers.0.mlp.up_proj.weight is blk.0.ffn_up.weight."""
    stem = name.removesuffix(".weight")
    if not stem.startswith("layers."):
        return f"{_NAMES[stem]}.weight"
    _, block, part = stem.split(".", 2)
    return f"blk.{block}.{_NAMES[part]}.weight"


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head so that pairs that turn together lie half a head apart.

    llama.cpp turns neighbours (2i, 2i + 1), `llama.rotate` the pair (i, i + head / 2).
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)
