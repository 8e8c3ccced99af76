"""A recipe's captioner, put together: tokens, encoder, mapper, language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from capsmith.bundle import Description
from capsmith.data.manifest import Manifest
from capsmith.errors import CheckpointError, ConfigError
from capsmith.export.captioner import describe
from capsmith.models.architectures import build_language_model, build_mapper
from capsmith.models.caption_model import CaptionModel
from capsmith.models.class_words import read_class_words
from capsmith.models.encoder_names import open_encoder
from capsmith.models.encoders import EfficientNetLite, published_efficientnet_lite
from capsmith.models.gguf_files import is_gguf
from capsmith.models.hinted_mapper import HINTS, HintedGridMapper
from capsmith.models.image_encoder import ImageEncoder
from capsmith.models.language_models import CrossAttentionDecoder
from capsmith.models.mappers import Mapper
from capsmith.models.policies import apply_policy
from capsmith.models.pretrained_language_models import load_language_model, random_language_model
from capsmith.models.word_vectors import published_vectors
from capsmith.training.config import Recipe, TokenizerConfig
from capsmith.training.vocabulary import CaptionTokens, build_tokens
from capsmith.training.word_vocabulary import Lines


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything that is trained and exported; what trains is as the recipe's policy says.

    encoder: the whole. store_encoder: what makes stored features: the encoder, or its first blocks;
    None where photos are read at every step. `model` has inside it what of the encoder runs while
    it trains.
    """

    recipe: Recipe
    tokens: CaptionTokens
    encoder: ImageEncoder
    store_encoder: ImageEncoder | None
    model: CaptionModel
    description: Description


def assemble(recipe: Recipe, train: Manifest, *, base: Path, is_dry: bool = False) -> Assembly:
    """The captioner before its training; a tokenizer of its own learns from the captions.

    base: the folder that the recipe's paths are relative to. is_dry: random weights of the
    published sizes, and a tokenizer trained on the captions where the named one is not at hand:
    nothing is downloaded. Raises `ConfigError` for parts that do not fit together,
    `CheckpointError` for those that cannot be had.
    """
    tokens = _tokens(recipe, train, base=base, is_dry=is_dry)
    return put_together(recipe, tokens, base=base, is_dry=is_dry)


def put_together(
    recipe: Recipe, tokens: CaptionTokens, *, base: Path, is_dry: bool = False
) -> Assembly:
    """The captioner of tokens that are there already; see `assemble`."""
    _check_rewarded(recipe, tokens)
    encoder = open_encoder(recipe.encoder, random=is_dry)
    language_model = _language_model(recipe.language_model, tokens, base=base, is_dry=is_dry)
    mapper = _mapper(recipe, encoder, language_model)
    if mapper is None:
        mapper = _hinted(recipe, encoder, language_model, tokens, base=base, is_dry=is_dry)
    store_encoder, inner = _parts(recipe, encoder)
    model = CaptionModel(
        mapper,
        language_model,
        start_tokens=tokens.start,
        end_token=tokens.end,
        language_tokens=tokens.languages,
        detail_tokens=tokens.details,
        encoder=inner,
    )
    training = recipe.training
    apply_policy(model, training.policy, rank=training.rank, alpha=training.alpha)
    if isinstance(mapper, HintedGridMapper):
        mapper.classifier.requires_grad_(False)  # it tells what the encoder sees, as published
    description = describe(
        model,
        name=recipe.name,
        version=recipe.version,
        licence=recipe.licence,
        languages=tokens.spoken,
        encoder=encoder,
        never_tokens=tokens.never,
        text=recipe.text,
        language_text=tokens.language_text,
        decoding=recipe.decoding,
    )
    return Assembly(recipe, tokens, encoder, store_encoder, model, description)


def _check_rewarded(recipe: Recipe, tokens: CaptionTokens) -> None:
    unknown = sorted(recipe.self_critical.languages.keys() - set(tokens.spoken))
    if unknown:
        raise ConfigError(
            f"self_critical.languages: no captions are in {unknown[0]}; the data has"
            f" {', '.join(tokens.spoken)}"
        )


def _parts(recipe: Recipe, encoder: ImageEncoder) -> tuple[ImageEncoder | None, nn.Module | None]:
    """What of the encoder makes stored features, and what is part of the captioner's training."""
    features = recipe.features
    if features.source == "pixels":
        return None, encoder
    if not features.depth:
        return encoder, None
    if not isinstance(encoder, EfficientNetLite):
        raise ConfigError(
            f"features.depth needs an encoder of the family efficientnet-lite; {encoder.name} is"
            " stored whole or trained from pixels"
        )
    return encoder.split(features.depth)


def _languages(recipe: Recipe, train: Manifest) -> tuple[str, ...]:
    """The languages of the captions, in the order in which the recipe names them."""
    named = dict.fromkeys(source.language or "en" for source in recipe.data.sources)
    found = train.languages or tuple(named)[:1]
    return tuple(sorted(found, key=lambda name: list(named).index(name) if name in named else 99))


def _tokens(recipe: Recipe, train: Manifest, *, base: Path, is_dry: bool) -> CaptionTokens:
    lines = {
        language: Lines(
            captions=[text for photo in train.photos for text in photo.texts(language)],
            texts=[line.text for line in train.texts if line.language == language],
        )
        for language in _languages(recipe, train)
    }
    rules = recipe.text, recipe.language_text
    try:
        wanted = replace(recipe.tokenizer, name=_seen_from(base, recipe.tokenizer.name))
        return build_tokens(wanted, lines, *rules, allow_download=not is_dry)
    except CheckpointError:
        if not is_dry:
            raise
    own = replace(TokenizerConfig(), vocab_size=recipe.tokenizer.vocab_size)
    return build_tokens(own, lines, *rules)


def _seen_from(base: Path, name: str) -> str:
    """A published name as it is; the path of a file from where the recipe's paths begin."""
    return str(base / name) if is_gguf(name) else name


def _language_model(
    sizes: Mapping[str, Any], tokens: CaptionTokens, *, base: Path, is_dry: bool
) -> Any:
    if "pretrained" in sizes:
        return _pretrained(sizes, tokens, base=base, is_dry=is_dry)
    if "kind" not in sizes:
        raise ConfigError('language_model needs "kind", or "pretrained" and a name')
    rest = {name: value for name, value in sizes.items() if name not in ("kind", "word_vectors")}
    rest["vocab_size"] = tokens.vocab_size
    if sizes["kind"] == "cross-attention":
        rest["languages"] = len(tokens.languages)
    model = build_language_model(sizes["kind"], rest)
    source = sizes.get("word_vectors")
    if source is not None:
        if not isinstance(model, CrossAttentionDecoder):
            raise ConfigError("language_model.word_vectors needs kind: cross-attention")
        if not is_dry:
            vectors = published_vectors(str(source), tokens.words(), model.width)
            model.tokens.weight.data.copy_(vectors)
    return model


def _pretrained(
    sizes: Mapping[str, Any], tokens: CaptionTokens, *, base: Path, is_dry: bool
) -> nn.Module:
    unknown = sizes.keys() - {"pretrained", "dropout"}
    if unknown:
        raise ConfigError(f"language_model.{min(unknown)} cannot be set for a pretrained one")
    load = random_language_model if is_dry else load_language_model
    name = _seen_from(base, str(sizes["pretrained"]))
    model = load(name, dropout=float(sizes.get("dropout", 0.0)))
    if model.vocab_size < tokens.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokens.vocab_size} tokens, {sizes['pretrained']} only"
            f" {model.vocab_size}; use the tokenizer that belongs to it"
        )
    return model


def _mapper(recipe: Recipe, encoder: ImageEncoder, language_model: Any) -> Mapper | None:
    """The mapper, but for one whose words are in a file."""
    sizes = recipe.mapper
    if "kind" not in sizes:
        raise ConfigError('mapper needs "kind"')
    if "class_words" in sizes:
        return None
    follows: dict[str, Any] = {"input_width": encoder.width, "width": language_model.width}
    if sizes["kind"] == "grid":
        follows["input_rows"] = encoder.rows
    wrong = [name for name, value in follows.items() if sizes.get(name, value) != value]
    if wrong:
        raise ConfigError(
            f"mapper.{wrong[0]} is {sizes[wrong[0]]}; encoder and language model make it"
            f" {follows[wrong[0]]}, so leave it out"
        )
    rest = {name: value for name, value in sizes.items() if name != "kind"}
    return build_mapper(sizes["kind"], {**rest, **follows})


def _hinted(
    recipe: Recipe,
    encoder: ImageEncoder,
    language_model: Any,
    tokens: CaptionTokens,
    *,
    base: Path,
    is_dry: bool,
) -> Mapper:
    """A hinted-grid mapper: its words are the file's, its classifier the published encoder's."""
    spec = recipe.encoder
    fits = isinstance(language_model, CrossAttentionDecoder) and spec.family == "efficientnet-lite"
    if recipe.mapper["kind"] != "hinted-grid" or not fits:
        raise ConfigError(
            "mapper.class_words needs mapper.kind: hinted-grid, language_model.kind:"
            " cross-attention and encoder.family: efficientnet-lite"
        )
    sizes = {k: v for k, v in recipe.mapper.items() if k not in ("kind", "class_words")}
    vocabulary = tokens.tokenizer.get_vocab()
    found = read_class_words(base / str(recipe.mapper["class_words"]), vocabulary)
    sizes |= {
        "input_width": encoder.width,
        "width": language_model.width,
        "rows": encoder.rows + int(sizes.get("hints", HINTS)),
        "classes": len(found.table),
        "words": len(found.words),
    }
    mapper = build_mapper("hinted-grid", sizes)
    assert isinstance(mapper, HintedGridMapper)
    published = published_efficientnet_lite(spec.name, spec.weights, random=is_dry)
    mapper.names = found.words
    mapper.class_words.copy_(found.table)
    mapper.classifier.load_state_dict(published.classifier.state_dict())
    with torch.no_grad():
        rows = language_model.tokens.weight[[vocabulary[word] for word in found.words]]
        mapper.words.weight.copy_(rows * language_model.width**0.5)
    return mapper
