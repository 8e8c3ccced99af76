"""Tiny GGUF files in the layout that llama.cpp's converter writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import pre_tokenizers

gguf: Any = pytest.importorskip("gguf", reason="gguf is not installed: pip install gguf")

WIDTH, HEADS, KEY_VALUE_HEADS, FEED = 32, 4, 2, 64
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
OWN = "<photo>"
MERGES = ["Ġ d", "o g", "Ġd og", "Ġ a", "r u", "n s", "Ġ ru", "Ġru ns", "1 2"]
CONTROL, NORMAL, USER_DEFINED = 3, 1, 4
Arrays = dict[str, npt.NDArray[np.float32]]


def tokens() -> list[str]:
    """Special tokens, all bytes but that of U+10FFFF's first, what merges make, and one more."""
    letters = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - {"ô"})
    return [*SPECIAL, *letters, *(merge.replace(" ", "") for merge in MERGES), OWN]


def facts(**changes: Any) -> dict[str, Any]:
    """Metadata by key; a change to None leaves a key out."""
    listed = tokens()
    known = {
        "llama.context_length": 40,
        "llama.embedding_length": WIDTH,
        "llama.block_count": 2,
        "llama.feed_forward_length": FEED,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KEY_VALUE_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-3,
        "llama.rope.freq_base": 500.0,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": listed,
        "tokenizer.ggml.token_type": [
            CONTROL if token in SPECIAL else USER_DEFINED if token == OWN else NORMAL
            for token in listed
        ],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return {key: value for key, value in {**known, **changes}.items() if value is not None}


def arrays(*, is_tied: bool = True) -> Arrays:
    """Random weights by the names of the file."""
    draw = np.random.default_rng(0)
    head = WIDTH // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (len(tokens()), WIDTH),
        "output_norm": (WIDTH,),
    }
    if not is_tied:
        shapes["output"] = (len(tokens()), WIDTH)
    for block in range(2):
        shapes |= {
            f"blk.{block}.attn_norm": (WIDTH,),
            f"blk.{block}.attn_q": (WIDTH, WIDTH),
            f"blk.{block}.attn_k": (KEY_VALUE_HEADS * head, WIDTH),
            f"blk.{block}.attn_v": (KEY_VALUE_HEADS * head, WIDTH),
            f"blk.{block}.attn_output": (WIDTH, WIDTH),
            f"blk.{block}.ffn_norm": (WIDTH,),
            f"blk.{block}.ffn_gate": (FEED, WIDTH),
            f"blk.{block}.ffn_up": (FEED, WIDTH),
            f"blk.{block}.ffn_down": (WIDTH, FEED),
        }
    return {
        f"{name}.weight": draw.normal(1.0 if "norm" in name else 0.0, 0.3, shape).astype("f4")
        for name, shape in shapes.items()
    }


def write_gguf(
    path: Path,
    *,
    known: Mapping[str, Any] | None = None,
    weights: Mapping[str, npt.NDArray[np.float32]] | None = None,
    architecture: str = "llama",
) -> None:
    """Write a file: word embeddings of 8 bits, linear layers of Q4_1, norms of float32."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (facts() if known is None else known).items():
        add_fact(writer, key, value)
    kinds = gguf.GGMLQuantizationType
    for name, array in (arrays() if weights is None else weights).items():
        if array.ndim == 1:
            writer.add_tensor(name, array)
            continue
        kind = kinds.Q4_1 if name.startswith("blk") else kinds.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_fact(writer: Any, key: str, value: Any) -> None:
    """Add one fact, typed as llama.cpp's converter does."""
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)
