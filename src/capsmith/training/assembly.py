"""A recipe's captioner, put together: tokens, encoder, mapper, language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from capsmith.bundle import Description
from capsmith.errors import CheckpointError, ConfigError
from capsmith.export.captioner import describe
from capsmith.models.architectures import build_language_model, build_mapper
from capsmith.models.caption_model import CaptionModel
from capsmith.models.encoder_names import open_encoder
from capsmith.models.image_encoder import ImageEncoder
from capsmith.models.policies import apply_policy
from capsmith.models.pretrained_language_models import load_language_model, random_language_model
from capsmith.training.config import Recipe, TokenizerConfig
from capsmith.training.vocabulary import CaptionTokens, build_tokens


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything that is trained and exported; what trains is as the recipe's policy says.

    `model` has the encoder inside where that reads pixels while it trains.
    """

    recipe: Recipe
    tokens: CaptionTokens
    encoder: ImageEncoder
    model: CaptionModel
    description: Description


def assemble(
    recipe: Recipe, captions: list[str], languages: tuple[str, ...], *, is_dry: bool = False
) -> Assembly:
    """The captioner before its training; a tokenizer of its own learns from `captions`.

    is_dry: random weights of the published sizes, and a tokenizer trained on the captions where
    the named one is not at hand: nothing is downloaded. Raises `ConfigError` for parts that do not
    fit together, `CheckpointError` for those that cannot be had.
    """
    tokens = _tokens(recipe, captions, languages, is_dry=is_dry)
    encoder = open_encoder(recipe.encoder, random=is_dry)
    return put_together(recipe, tokens, encoder, is_dry=is_dry)


def put_together(
    recipe: Recipe, tokens: CaptionTokens, encoder: ImageEncoder, *, is_dry: bool
) -> Assembly:
    """The captioner of tokens and an encoder that are there already."""
    language_model = _language_model(recipe.language_model, tokens, is_dry=is_dry)
    mapper = _mapper(recipe.mapper, encoder, language_model)
    model = CaptionModel(
        mapper,
        language_model,
        start_tokens=tokens.start,
        end_token=tokens.end,
        language_tokens=tokens.languages,
        encoder=encoder if recipe.features.source == "pixels" else None,
    )
    training = recipe.training
    apply_policy(model, training.policy, rank=training.rank, alpha=training.alpha)
    if recipe.features.source == "pixels":
        encoder.requires_grad_(training.policy == "all")
    description = describe(
        model,
        name=recipe.name,
        licence=recipe.licence,
        languages=tuple(tokens.languages) or _languages(recipe),
        encoder=encoder,
        never_tokens=tokens.never,
        text=recipe.text,
        decoding=recipe.decoding,
    )
    return Assembly(recipe, tokens, encoder, model, description)


def _languages(recipe: Recipe) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source.language or "en" for source in recipe.data.sources))[:1]


def _tokens(
    recipe: Recipe, captions: list[str], languages: tuple[str, ...], *, is_dry: bool
) -> CaptionTokens:
    try:
        return build_tokens(
            recipe.tokenizer, recipe.text, captions, languages, allow_download=not is_dry
        )
    except CheckpointError:
        if not is_dry:
            raise
    own = replace(TokenizerConfig(), vocab_size=recipe.tokenizer.vocab_size)
    return build_tokens(own, recipe.text, captions, languages)


def _language_model(sizes: Mapping[str, Any], tokens: CaptionTokens, *, is_dry: bool) -> nn.Module:
    if "pretrained" not in sizes:
        if "kind" not in sizes:
            raise ConfigError('language_model needs "kind", or "pretrained" and a name')
        rest = {name: value for name, value in sizes.items() if name != "kind"}
        return build_language_model(sizes["kind"], {**rest, "vocab_size": tokens.vocab_size})
    unknown = sizes.keys() - {"pretrained", "dropout"}
    if unknown:
        raise ConfigError(f"language_model.{min(unknown)} cannot be set for a pretrained one")
    load = random_language_model if is_dry else load_language_model
    model = load(str(sizes["pretrained"]), dropout=float(sizes.get("dropout", 0.0)))
    if model.vocab_size < tokens.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokens.vocab_size} tokens, {sizes['pretrained']} only"
            f" {model.vocab_size}; use the tokenizer that belongs to it"
        )
    return model


def _mapper(sizes: Mapping[str, Any], encoder: ImageEncoder, language_model: nn.Module) -> Any:
    if "kind" not in sizes:
        raise ConfigError('mapper needs "kind"')
    follows: dict[str, Any] = {"input_width": encoder.width, "width": language_model.width}
    if sizes["kind"] == "grid":
        follows["input_rows"] = encoder.rows
    given = follows.keys() & sizes.keys()
    if given:
        raise ConfigError(f"mapper.{min(given)} follows from encoder and language model; remove it")
    rest = {name: value for name, value in sizes.items() if name != "kind"}
    return build_mapper(sizes["kind"], {**rest, **follows})
