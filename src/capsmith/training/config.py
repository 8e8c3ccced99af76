"""Recipes: everything that decides how a captioner is trained, read from a YAML file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from capsmith import strict_json
from capsmith.bundle import Decoding, TextRules
from capsmith.data.sources import DataSource
from capsmith.data.store import Precision
from capsmith.errors import ConfigError
from capsmith.models.encoder_names import EncoderSpec
from capsmith.models.policies import Policy
from capsmith.models.text_only import Noise
from capsmith.training.recipe_file import read_sections

_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The photos and captions.

    Paths are relative to the recipe. hold_out: share of all photos that become the validation
    split, where no split list says which do. max_tokens: longer captions are cut there, and do not
    teach how captions end (0: none is cut).
    """

    sources: tuple[DataSource, ...]
    hold_out: float = 0.0
    max_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Where features come from.

    stored     every photo is encoded once, before training, by an encoder that stays as it is
    pixels     photos are decoded and encoded at every step, so that the encoder may train
    texts      CapDec: embeddings of the captions themselves, with noise; no photo is read but for
               validation

    store: a folder made by `capsmith embed` (default: one in the output folder). depth: store what
    the encoder's first blocks make of a photo, so many; the others train with the captioner where
    the policy is "all". views: store so many versions of each training photo, all but the first
    cut, mirrored and coloured at random. dtype: of what is stored. augment: the same at every step;
    needs pixels. workers: processes that decode them. noise, variance: of "texts", see
    `text_only.with_noise`. offset: move "texts" by the step from their centre to that of the
    validation photos (`text_only.modality_offset`).
    """

    source: Literal["stored", "pixels", "texts"] = "stored"
    store: str = ""
    depth: int = 0
    views: int = 1
    dtype: Precision = "float32"
    augment: bool = False
    workers: int = 0
    noise: Noise = "gaussian"
    variance: float = 0.016
    offset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerConfig:
    """Tokens of the captions.

    details: a token says how long a caption is, so that captioners can be asked for short, normal
    and long ones: thirds of each language's captions.

    bpe         byte-level BPE trained on the captions, at most `vocab_size` tokens
    words       whole words, those that at least `least_seen` captions of photos in their language
                have, or `least_seen_in_text` captions with and without a photo (0: none more);
                commas: they are words too, other punctuation is left out
    pretrained  that of the language model `name`; end: its token that ends a caption, by default
                the one that the tokenizer names so
    """

    kind: Literal["bpe", "words", "pretrained"] = "bpe"
    vocab_size: int = 4000
    least_seen: int = 4
    least_seen_in_text: int = 0
    name: str = ""
    end: str = ""
    commas: bool = False
    details: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How weights change.

    policy: what trains (`policies.Policy`); rank, alpha: of its low-rank parts. epochs: passes
    over the training captions; steps: instead of them, where not 0. batch: captions, or photos
    where `captions_a_photo` is not 0: then a step reads so many captions of each. accumulate:
    steps whose gradients are added before weights change. warmup: steps of linear rise.
    encoder_pace: learning rate of the encoder, as a share. average: decay of the moving average
    of weights, which is what is validated and exported (0: none). precision: of the arithmetic;
    weights stay float32.
    """

    policy: Policy = "mapper"
    rank: int = 8
    alpha: int = 16
    epochs: int = 10
    steps: int = 0
    batch: int = 40
    captions_a_photo: int = 0
    accumulate: int = 1
    learning_rate: float = 2e-5
    encoder_pace: float = 0.1
    warmup: int = 0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    label_smoothing: float = 0.0
    average: float = 0.0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Losses beside that of the captions; each number is a weight, and 0 leaves it out.

    tags: telling from the first row of the features which of the `tag_words` most frequent words
    a photo's captions have (Wu et al. 2016 caption from such attributes). classes: staying with
    the published encoder's ImageNet classes while the encoder trains (an efficientnet-lite's).
    texts: captions without photos, `texts_a_step`, read after hints in words (mapper hinted-grid).
    """

    tags: float = 0.0
    tag_words: int = 1000
    classes: float = 0.0
    texts: float = 0.0
    texts_a_step: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCritical:
    """A second stage on CIDEr-D (Rennie et al. 2017); 0 steps is none.

    captions: beams a photo. average: as in `Training`. blend: share of this stage in the weights
    that are validated and exported, the rest being the best of the first stage (Wortsman et al.
    2022). languages: factors of the weights of a language's captions, by which the language of a
    photo is drawn; 1 for those that are not named.
    """

    steps: int = 0
    learning_rate: float = 1e-5
    batch: int = 24
    captions: int = 5
    average: float = 0.99
    blend: float = 1.0
    languages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What is measured while training.

    every: steps (0: at the end of each epoch). photos: of the validation split, at most.
    samples: photos whose captions are logged. patience: validations without a better CIDEr before
    training ends (0: never). checkpoint_every: steps between checkpoints besides.
    """

    every: int = 0
    photos: int = 200
    samples: int = 6
    patience: int = 0
    checkpoint_every: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFiles:
    """Files of a bundle beside graphs and tokenizer: model card, licence, names of classes."""

    card: str = ""
    licence: str = ""
    classes: str = ""


_PLAIN = TextRules(lowercase_prompt=False, capitalise=False, final_period=False, join="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One captioner and its training.

    encoder: see `encoder_names`. mapper: `kind`, one of `architectures.MAPPERS`, and the fields of
    its config but `input_width` and `width`, which follow from its neighbours. language_model:
    `kind`, one of `architectures.LANGUAGE_MODELS`, and the fields of its config but `vocab_size`;
    or `pretrained`, a name, a folder or a GGUF file. decoding: what a caller of the bundle gets who
    names nothing. text, language_text: how captions are written, and the languages that follow
    other rules. start: a bundle, a run's folder or a name whose captioner is trained on: encoder,
    mapper, language model, tokens and text rules are then its own. papers: files that take the
    place of a bundle's written texts.
    """

    name: str
    data: DataConfig
    decoding: Decoding
    encoder: EncoderSpec = field(default_factory=lambda: EncoderSpec(family="shipped"))
    mapper: Mapping[str, Any] = field(default_factory=dict)
    language_model: Mapping[str, Any] = field(default_factory=dict)
    text: TextRules = field(default_factory=lambda: _PLAIN)
    language_text: Mapping[str, TextRules] = field(default_factory=dict)
    start: str = ""
    papers: PaperFiles = field(default_factory=lambda: PaperFiles())
    version: str = "1.0.0"
    licence: str = "as that of its data; not stated"
    features: FeatureConfig = field(default_factory=FeatureConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    training: Training = field(default_factory=Training)
    beside: Beside = field(default_factory=Beside)
    self_critical: SelfCritical = field(default_factory=SelfCritical)
    validation: Validation = field(default_factory=Validation)

    def to_dict(self) -> dict[str, Any]:
        """As `parse_recipe` reads it."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        plain["decoding"]["strategy"]["kind"] = strict_json.tag(type(self.decoding.strategy))
        return plain


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with changes "section.field=value" on top; see `recipe_file.read_sections`."""
    return parse_recipe(read_sections(path, changes), path)


def parse_recipe(value: object, path: Path) -> Recipe:
    """A recipe from parsed YAML or JSON; `path` is for messages."""
    try:
        recipe = strict_json.parse(Recipe, value)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; correct the recipe") from None
    _check(recipe, path)
    return recipe


_POSITIVE = (
    "training.batch", "training.accumulate", "training.learning_rate", "training.epochs",
    "training.rank", "training.clip", "validation.photos", "validation.checkpoint_every",
    "training.alpha", "self_critical.batch", "self_critical.learning_rate",
    "tokenizer.vocab_size", "tokenizer.least_seen", "features.views", "beside.tag_words",
    "beside.texts_a_step",
)  # fmt: skip
_SHARES = (
    "training.average", "training.label_smoothing", "training.encoder_pace",
    "self_critical.average", "self_critical.blend",
)  # fmt: skip
_COUNTS = (
    "training.steps", "training.warmup", "training.captions_a_photo", "data.max_tokens",
    "self_critical.steps", "validation.every", "validation.patience", "validation.samples",
    "features.workers", "training.weight_decay", "features.variance", "training.seed",
    "features.depth", "beside.tags", "beside.classes", "beside.texts",
)  # fmt: skip

_RULES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (_POSITIVE, lambda value: value > 0, "more than 0"),
    (_SHARES, lambda value: 0 <= value <= 1, "from 0 to 1"),
    (_COUNTS, lambda value: value >= 0, "0 or more"),
)


def _check(recipe: Recipe, path: Path) -> None:
    """Raise `ConfigError` for values that fit their types and make no sense."""
    wrong = next(
        chain(
            _out_of_range(recipe),
            _wrong_parts(recipe),
            _contradictions(recipe),
            _contradicting_texts(recipe),
            _wrong_beside(recipe),
        ),
        None,
    )
    if wrong:
        raise ConfigError(f"{path}: {wrong}")


def _out_of_range(recipe: Recipe) -> Iterator[str]:
    for names, is_right, rule in _RULES:
        for name in names:
            section, _, field_name = name.partition(".")
            value = getattr(getattr(recipe, section), field_name)
            if not is_right(value):
                yield f"{name} is {value}; it must be {rule}"
    if recipe.training.seed > _LARGEST_SEED:
        yield f"training.seed is {recipe.training.seed}; it must be at most {_LARGEST_SEED}"
    if not all(0 <= beta < 1 for beta in recipe.training.betas):
        yield f"training.betas are {recipe.training.betas}; they must be from 0 to below 1"


def _wrong_parts(recipe: Recipe) -> Iterator[str]:
    """Of sections whose fields follow from their kind: what no kind of them can have."""
    for section in ("mapper", "language_model"):
        kind = getattr(recipe, section).get("kind", "")
        if not isinstance(kind, str):
            yield f"{section}.kind is {strict_json.show(kind)}; it must be one name"
    dropout = recipe.language_model.get("dropout", 0.0)
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        shown = strict_json.show(dropout)
        yield f"language_model.dropout is {shown}; it must be from 0 to below 1"
    if not recipe.data.sources:
        yield "data.sources is empty; name a data set"


def _contradictions(recipe: Recipe) -> Iterator[str]:
    features = recipe.features
    if features.augment and features.source != "pixels":
        yield "features.augment needs features.source: pixels"
    if recipe.training.policy == "all" and features.source != "pixels" and not features.depth:
        yield "training.policy: all needs features.source: pixels, or features.depth"
    if (features.depth or features.views > 1) and features.source != "stored":
        yield "features.depth and features.views need features.source: stored"
    if features.store and features.views > 1:
        yield "features.store is of one view; leave it out, or set features.views to 1"
    if recipe.self_critical.steps and recipe.self_critical.captions < 2:
        yield f"self_critical.captions is {recipe.self_critical.captions}; it must be 2 or more"
    for language, times in recipe.self_critical.languages.items():
        if times <= 0:
            yield f"self_critical.languages.{language} is {times:g}; it must be above 0"


def _contradicting_texts(recipe: Recipe) -> Iterator[str]:
    features, encoder = recipe.features, recipe.encoder
    is_of_texts = features.source == "texts"
    if is_of_texts and recipe.self_critical.steps:
        yield "self_critical reads photos, and features.source: texts has none; set its steps to 0"
    gives_embedding = encoder.output == "default" and encoder.family != "shipped"
    if is_of_texts and encoder.output != "embedding" and not gives_embedding:
        yield "features.source: texts needs encoder.output: embedding"
    if features.offset and not (is_of_texts and features.variance):
        yield "features.offset needs features.source: texts, and a variance above 0"


def _wrong_beside(recipe: Recipe) -> Iterator[str]:
    if recipe.beside.texts and recipe.mapper.get("kind") != "hinted-grid":
        yield "beside.texts needs mapper.kind: hinted-grid"
    if recipe.beside.classes and recipe.encoder.family != "efficientnet-lite":
        yield "beside.classes needs encoder.family: efficientnet-lite"
    if recipe.beside.classes and not recipe.features.depth:
        yield "beside.classes needs features.depth: an encoder that trains"
