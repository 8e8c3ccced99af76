"""Language models and tokenizers of `transformers`, by name or folder, and out of GGUF files.

A name is looked up on the hub as `transformers` does; a folder or file is read from disk. Weights
are copied into our own modules, which train, decode step by step and export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers

from capsmith.errors import CheckpointError, ConfigError
from capsmith.models.gguf_files import GGUFFile, gguf_sizes, is_gguf, load_gguf
from capsmith.models.gguf_tokenizers import load_gguf_tokenizer
from capsmith.models.gpt2 import GPT2, GPT2Config, load_gpt2
from capsmith.models.hub_names import from_disk_or_hub
from capsmith.models.llama import Llama, LlamaConfig

_KEYS_THAT_ARE_NOT_WEIGHTS = ("rotary_emb.inv_freq",)


PUBLISHED: Mapping[str, GPT2Config | LlamaConfig] = {
    "gpt2": GPT2Config(),
    "gpt2-medium": GPT2Config(width=1024, layers=24, heads=16),
    "gpt2-large": GPT2Config(width=1280, layers=36, heads=20),
    "gpt2-xl": GPT2Config(width=1600, layers=48, heads=25),
    "distilgpt2": GPT2Config(layers=6),
    "uer/gpt2-chinese-cluecorpussmall": GPT2Config(vocab_size=21128),
    "HuggingFaceTB/SmolLM2-135M": LlamaConfig(positions=8192, rotary_base=100000.0),
    "SmolLM2-135M-Instruct.Q4_1.gguf": LlamaConfig(positions=8192, rotary_base=100000.0),
}
"""Sizes of language models by their published names, for what needs no weights."""


def random_language_model(name: str, *, dropout: float = 0.0) -> GPT2 | Llama:
    """A language model of a published size with random weights, for dry runs and benchmarks.

    A GGUF file that is there says its sizes itself. Raises `ConfigError` for a name that is not in
    `PUBLISHED`.
    """
    sizes = replace(_sizes(name), dropout=dropout)
    return GPT2(sizes) if isinstance(sizes, GPT2Config) else Llama(sizes)


def _sizes(name: str) -> GPT2Config | LlamaConfig:
    path = Path(name)
    if is_gguf(path) and path.exists():
        return gguf_sizes(GGUFFile(path))
    known = path.name if is_gguf(path) else name
    if known not in PUBLISHED:
        raise ConfigError(
            f"the sizes of {name} are not known without its files; known are {', '.join(PUBLISHED)}"
        )
    return PUBLISHED[known]


def load_language_model(name: str | Path, *, dropout: float = 0.0) -> GPT2 | Llama:
    """A GPT-2, Llama or Qwen2 with its published weights, in float32 and evaluation mode.

    dropout: what it trains on with. Raises `CheckpointError` for another family, or where a model
    of the family computes what ours does not.
    """
    if is_gguf(name):
        return load_gguf(Path(name), dropout=dropout)
    from transformers import AutoConfig, AutoModelForCausalLM

    config = from_disk_or_hub(AutoConfig.from_pretrained, name)
    sizes = replace(language_model_config(config), dropout=dropout)
    published = from_disk_or_hub(AutoModelForCausalLM.from_pretrained, name, dtype="float32")
    return copy_weights(published, sizes)


def copy_weights(published: Any, sizes: GPT2Config | LlamaConfig) -> GPT2 | Llama:
    """Our module with the weights of a causal language model of `transformers`."""
    state = published.state_dict()
    if isinstance(sizes, GPT2Config):
        return load_gpt2(state, heads=sizes.heads, dropout=sizes.dropout)
    model = Llama(sizes)
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in state.items()
        if not name.endswith(_KEYS_THAT_ARE_NOT_WEIGHTS)
        and not (sizes.is_tied and name == "lm_head.weight")
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise CheckpointError(f"not the weights of a {type(model).__name__}: {line}") from error
    return model.eval()


def language_model_config(config: Any) -> GPT2Config | LlamaConfig:
    """Sizes of one of our modules from a config of `transformers`; for random weights, give them
    to `GPT2` or `Llama`.

    Raises `CheckpointError` as `load_language_model` does.
    """
    if config.model_type == "gpt2":
        return _gpt2_config(config)
    if config.model_type in ("llama", "qwen2"):
        return _llama_config(config)
    raise CheckpointError(
        f"a {config.model_type} cannot be read; the families are gpt2, llama and qwen2"
    )


def load_tokenizer(name: str | Path, *, allow_download: bool = True) -> tokenizers.Tokenizer:
    """The tokenizer that stands beside a language model, as one file of the `tokenizers` library.

    allow_download: ask the hub for what is not on this disk. Raises `CheckpointError` where there
    is none that this library can run.
    """
    if is_gguf(name):
        return load_gguf_tokenizer(Path(name))
    from transformers import AutoTokenizer

    loaded = from_disk_or_hub(AutoTokenizer.from_pretrained, name, allow_download=allow_download)
    found = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(found, tokenizers.Tokenizer):
        raise CheckpointError(f"{name}: its tokenizer has no tokenizer.json and cannot become one")
    return found


def _gpt2_config(config: Any) -> GPT2Config:
    _require(config, "activation_function", "gelu_new", "gelu_pytorch_tanh")
    _require(config, "n_inner", None, 4 * config.n_embd)
    _require(config, "layer_norm_epsilon", 1e-5)
    _require(config, "scale_attn_weights", True)
    _require(config, "scale_attn_by_inverse_layer_idx", False)
    _require(config, "add_cross_attention", False)
    return GPT2Config(
        vocab_size=config.vocab_size,
        positions=config.n_positions,
        width=config.n_embd,
        layers=config.n_layer,
        heads=config.n_head,
    )


def _llama_config(config: Any) -> LlamaConfig:
    rotary = config.rope_parameters
    if rotary.get("rope_type", "default") != "default":
        raise CheckpointError(
            f"this {config.model_type} has rotary positions of type {rotary['rope_type']}; only the"
            " default type can be read"
        )
    _require(config, "hidden_act", "silu")
    _require(config, "mlp_bias", False)
    _require(config, "use_sliding_window", False)
    is_qwen = config.model_type == "qwen2"
    if not is_qwen:
        _require(config, "attention_bias", False)
    return LlamaConfig(
        vocab_size=config.vocab_size,
        positions=config.max_position_embeddings,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        key_value_heads=config.num_key_value_heads,
        head_width=getattr(config, "head_dim", None),
        feed_width=config.intermediate_size,
        rotary_base=float(rotary["rope_theta"]),
        norm_epsilon=config.rms_norm_eps,
        has_attention_bias=is_qwen,
        is_tied=config.tie_word_embeddings,
    )


def _require(config: Any, field: str, *allowed: object) -> None:
    value = getattr(config, field, allowed[0])
    if value not in allowed:
        raise CheckpointError(
            f"this {config.model_type} has {field} = {value}; only"
            f" {' or '.join(map(str, allowed))} can be read"
        )
