"""What `captioner.json` says: dataclasses, and which of their values make sense."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

from capsmith import strict_json
from capsmith.types import Limits, Strategy

FORMAT = 2
"""2: a text tower has a tokenizer and a section of its own. All earlier formats are read."""

Detail = Literal["short", "normal", "long"]
DETAILS: Final[tuple[Detail, ...]] = ("short", "normal", "long")

_MAX_DIMENSION = 1 << 24  # far over any real model; keeps sizes from a file out of overflow


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The image encoder: its name and its features, `rows` x `width` a picture.

    `embedding` says how one vector is made of the rows: the first of them, or their mean.
    """

    name: str
    rows: int
    width: int
    embedding: Literal["first", "mean"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an RGB picture becomes pixels: resized to `width` x `height`, then (x/255 - mean)/std.

    "squash" resizes without keeping the shape; "crop" brings the short side to size and cuts the
    centre out.
    """

    width: int
    height: int
    resize: Literal["squash", "crop"]
    interpolation: Literal["bicubic", "bilinear", "lanczos"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """What the mapper gives the language model: `rows` x `width` a picture."""

    rows: int
    width: int


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """The language model's tokens: those that start, end and never enter a caption."""

    kind: Literal["prefix", "cross-attention", "recurrent"]
    vocab_size: int
    max_tokens: int
    start_tokens: tuple[int, ...]
    stop_tokens: tuple[int, ...]
    never_tokens: tuple[int, ...]
    precision: Literal["float32", "float16", "int8", "int4"]


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """How the tokens' text becomes a caption, and a prompt becomes tokens.

    `join` stands between the tokens of a word-level vocabulary; where the tokens carry their own
    spaces (byte-level BPE), or a language has none, it is empty. `period` is what `final_period`
    adds.
    """

    lowercase_prompt: bool
    capitalise: bool
    final_period: bool
    join: str
    period: str = "."


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """The text tower, `text.onnx` and `text_tokenizer.json`.

    languages: those that it was trained on. max_tokens: where longer texts are cut. scale: cosines
    of one picture and several texts times it are logits of which text belongs to the picture.
    """

    languages: tuple[str, ...]
    max_tokens: int
    scale: float


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What a caller gets who names neither a strategy nor limits."""

    strategy: Strategy
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """Named rules of ancestors that a bundle follows; none are known so far."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Size and SHA-256 (lower-case hex) of one file of the bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `captioner.json`. The first language is the default.

    Since format 2: language_text are rules of the languages whose text follows others than `text`;
    detail_tokens ask for captions of a length, after the language's token: all three, or none.
    """

    format: int
    name: str
    version: str
    languages: tuple[str, ...]
    licence: str
    provenance: Mapping[str, str]
    encoder: Encoder
    preprocessing: Preprocessing
    prefix: Prefix
    language_model: LanguageModel
    text: TextRules
    language_tokens: Mapping[str, tuple[int, ...]]
    decoding: Decoding
    quirks: Quirks
    files: Mapping[str, FileFacts]
    text_tower: TextTower | None = None
    language_text: Mapping[str, TextRules] = field(default_factory=dict)
    detail_tokens: Mapping[Detail, tuple[int, ...]] = field(default_factory=dict)

    def text_of(self, language: str) -> TextRules:
        """The text rules of one of the languages."""
        return self.language_text.get(language, self.text)

    def to_dict(self) -> dict[str, Any]:
        """What `captioner.json` holds, without the checksum over itself."""
        names = [field.name for field in fields(Description)]  # a Bundle has its folder too
        plain = {name: entry for name, entry in asdict(self).items() if name in names}
        strategy = self.decoding.strategy
        plain["decoding"]["strategy"] = {
            "kind": strict_json.tag(type(strategy)),
            **asdict(strategy),
        }
        return plain


def check_values(description: Description) -> None:
    """Raise `ValueError` where a value has the right type and makes no sense."""
    if not 1 <= description.format <= FORMAT:
        raise ValueError(f"has format {description.format}, which never existed")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", description.name):
        raise ValueError("has a name that is not lower-case letters, digits, '.', '_' and '-'")
    if not description.languages or len(set(description.languages)) < len(description.languages):
        raise ValueError("must list at least one language, each once")
    of_languages = description.language_tokens.keys() | description.language_text.keys()
    if not of_languages <= set(description.languages):
        raise ValueError("has tokens or text rules for a language that is not listed")
    _check_sizes(description)
    if min(description.preprocessing.std) <= 0:
        raise ValueError("has a preprocessing.std that is not over 0")
    if description.text_tower is not None:
        _check_text_tower(description.text_tower, description.format)
    _check_tokens(description)


def _check_tokens(description: Description) -> None:
    model, details = description.language_model, description.detail_tokens
    if details and details.keys() != set(DETAILS):
        raise ValueError(f"has detail_tokens that are not those of {', '.join(DETAILS)}")
    asked: Sequence[tuple[int, ...]] = [*description.language_tokens.values(), *details.values()]
    for tokens in (model.start_tokens, model.stop_tokens, model.never_tokens, *asked):
        if any(not 0 <= token < model.vocab_size for token in tokens):
            raise ValueError("names a token that is outside the vocabulary")
    if not model.stop_tokens:
        raise ValueError("names no stop token")


def _check_text_tower(tower: TextTower, version: int) -> None:
    if version < 2:
        raise ValueError(f"has a text_tower, which format {version} does not know")
    if not 0 < tower.max_tokens <= _MAX_DIMENSION:
        raise ValueError(f"has {tower.max_tokens} as text_tower.max_tokens, which is out of range")
    if not tower.scale > 0:
        raise ValueError(f"has {tower.scale} as text_tower.scale, which must be over 0")


def _check_sizes(description: Description) -> None:
    model, pixels = description.language_model, description.preprocessing
    positive = {
        "encoder.rows": description.encoder.rows,
        "encoder.width": description.encoder.width,
        "preprocessing.width": pixels.width,
        "preprocessing.height": pixels.height,
        "prefix.rows": description.prefix.rows,
        "prefix.width": description.prefix.width,
        "language_model.vocab_size": model.vocab_size,
        "language_model.max_tokens": model.max_tokens,
    }
    for where, number in positive.items():
        if not 0 < number <= _MAX_DIMENSION:
            raise ValueError(f"has {strict_json.show(number)} as {where}, which is out of range")
