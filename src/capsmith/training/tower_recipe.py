"""Recipes of text towers: everything that decides how one is trained, read from a YAML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from capsmith import strict_json
from capsmith.errors import ConfigError
from capsmith.models.text_tower import TextTowerConfig
from capsmith.training.config import DataConfig
from capsmith.training.recipe_file import read_sections


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerTokens:
    """Tokens of texts: a BPE of `vocab_size` tokens; texts are cut after `max_tokens`."""

    vocab_size: int = 8000
    max_tokens: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerTraining:
    """How weights change.

    batch: photos a step, each with one of its captions, drawn by weight. rank: directions of the
    photos' embeddings that the tower learns in (see `contrastive.whitening`). word_dropout: share
    of a caption's tokens that a step does not see. average: decay of the moving average of weights,
    which is what is kept.
    """

    steps: int = 3000
    batch: int = 256
    rank: int = 384
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.3
    word_dropout: float = 0.2
    average: float = 0.995
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerRecipe:
    """One text tower and its training.

    data: as in a captioner's recipe; texts without a photo are not read.
    """

    name: str
    data: DataConfig
    tokenizer: TowerTokens = field(default_factory=TowerTokens)
    tower: TextTowerConfig = field(default_factory=TextTowerConfig)
    training: TowerTraining = field(default_factory=TowerTraining)


def read_tower_recipe(path: Path, changes: Sequence[str] = ()) -> TowerRecipe:
    """Read a recipe, with changes "section.field=value" on top; raises `ConfigError`."""
    value = read_sections(path, changes)
    try:
        recipe = strict_json.parse(TowerRecipe, value)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; correct the recipe") from None
    for wrong in _wrong(recipe):
        raise ConfigError(f"{path}: {wrong}")
    return recipe


_LEAST = {
    "training.steps": 1,
    "training.batch": 2,  # or there would be nothing to tell a photo from
    "training.rank": 1,
    "training.learning_rate": 1e-9,
    "training.warmup": 0,
    "training.weight_decay": 0,
    "training.seed": 0,
    "tokenizer.vocab_size": 300,  # every byte is a token
    "tokenizer.max_tokens": 2,
    "data.max_tokens": 0,
}
_SHARES = ("training.word_dropout", "training.average")


def _wrong(recipe: TowerRecipe) -> Iterator[str]:
    if not recipe.data.sources:
        yield "data.sources is empty; name a data set"
    for name in (*_LEAST, *_SHARES):
        section, _, field_name = name.partition(".")
        value = getattr(getattr(recipe, section), field_name)
        if name in _SHARES and not 0 <= value < 1:
            yield f"{name} is {value}; it must be from 0 to below 1"
        if name in _LEAST and value < _LEAST[name]:
            yield f"{name} is {value}; it must be at least {_LEAST[name]}"
