"""Which mappers and language models there are, by the names that recipes use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from capsmith import strict_json
from capsmith.errors import ConfigError
from capsmith.models.bert_mapper import BertMapper
from capsmith.models.gpt2 import GPT2, GPT2Config
from capsmith.models.hinted_mapper import HintedGridMapper
from capsmith.models.language_models import CrossAttentionConfig, CrossAttentionDecoder
from capsmith.models.llama import Llama, LlamaConfig
from capsmith.models.mappers import LinearMapper, Mapper, MLPMapper
from capsmith.models.recurrent import RecurrentConfig, RecurrentModel
from capsmith.models.transformer_mappers import (
    EncoderDecoderMapper,
    EncoderMapper,
    GridMapper,
    TransformerMapper,
)

MAPPERS: Mapping[str, type[Mapper]] = {
    "linear": LinearMapper,
    "mlp": MLPMapper,
    "transformer": TransformerMapper,
    "encoder-decoder": EncoderDecoderMapper,
    "encoder": EncoderMapper,
    "bert": BertMapper,
    "grid": GridMapper,
    "hinted-grid": HintedGridMapper,
}

LANGUAGE_MODELS: Mapping[str, type[Any]] = {
    "gpt2": GPT2Config,
    "llama": LlamaConfig,
    "recurrent": RecurrentConfig,
    "cross-attention": CrossAttentionConfig,
}


def build_mapper(kind: str, sizes: Mapping[str, object]) -> Mapper:
    """The mapper of this name; `sizes` are the fields of its `Config`.

    Raises `ConfigError` for another name, and for a field that is unknown, missing or of another
    type.
    """
    kind_of_mapper = _named(MAPPERS, kind, "mapper")
    mapper: Mapper = kind_of_mapper(_parsed(kind_of_mapper.Config, sizes, f"mapper {kind}"))
    return mapper


def build_language_model(kind: str, sizes: Mapping[str, object]) -> nn.Module:
    """The `LanguageModel` of this name with random weights; `sizes` are its config's fields.

    Raises `ConfigError` as `build_mapper` does.
    """
    kind_of_config = _named(LANGUAGE_MODELS, kind, "language model")
    config = _parsed(kind_of_config, sizes, f"language model {kind}")
    if isinstance(config, GPT2Config):
        return GPT2(config)
    if isinstance(config, LlamaConfig):
        return Llama(config)
    if isinstance(config, RecurrentConfig):
        return RecurrentModel(config)
    return CrossAttentionDecoder(config)


def architecture_of(mapper: Mapper, language_model: Any) -> dict[str, dict[str, Any]]:
    """The names and sizes that `build_mapper` and `build_language_model` make the two again of."""
    config = language_model.config
    kinds = {kind: name for name, kind in MAPPERS.items()}
    families = {kind: name for name, kind in LANGUAGE_MODELS.items()}
    return {
        "mapper": {"kind": kinds[type(mapper)], **asdict(mapper.config)},
        "language_model": {"kind": families[type(config)], **asdict(config)},
    }


def _named(table: Mapping[str, Any], kind: str, what: str) -> Any:
    if kind not in table:
        raise ConfigError(f'"{kind}" is no {what}; use one of {", ".join(table)}')
    return table[kind]


def _parsed(config: type[Any], sizes: Mapping[str, object], what: str) -> Any:
    try:
        made = strict_json.parse(config, dict(sizes))
    except ValueError as error:
        raise ConfigError(f"{what} {error}") from None
    _check_heads(made, what)
    return made


def _check_heads(config: Any, what: str) -> None:
    """Raise `ConfigError` where a width cannot be dealt to the heads of attention evenly."""
    heads = getattr(config, "heads", 1)
    names = ["width", "reference_width"]
    if isinstance(config, EncoderMapper.Config):
        names = ["input_width"]
    if getattr(config, "head_width", None) is not None:
        names = []
    for name in names:
        width = getattr(config, name, 0)
        if heads < 1 or width % heads:
            raise ConfigError(f"{what}: {heads} heads do not divide its {name}, {width}")
    groups = getattr(config, "key_value_heads", heads)
    if groups < 1 or heads % groups:
        raise ConfigError(f"{what}: {groups} key_value_heads do not divide its {heads} heads")
