"""A caller's `Limits`, which are text, as the `Rules` of decoding, which are token ids."""

from __future__ import annotations

from capsmith.bundle import Description
from capsmith.errors import ConfigError
from capsmith.runtime.rules import Rules
from capsmith.runtime.tokenizer import Tokenizer
from capsmith.types import Limits


def resolve_limits(
    limits: Limits | None, language: str, *, bundle: Description, tokenizer: Tokenizer
) -> tuple[Rules, tuple[int, ...]]:
    """The rules of one run, and the token ids of the caller's prompt at the end of `rules.prompt`.

    Raises `ConfigError` where the bundle cannot keep to the limits.
    """
    model, defaults = bundle.language_model, bundle.decoding.limits
    limits = defaults if limits is None else limits
    if not isinstance(limits, Limits):
        raise ConfigError(f"limits is {limits!r}; give capsmith.Limits(...)")
    prompt = known_tokens(limits.prompt, "the prompt", bundle=bundle, tokenizer=tokenizer)
    room = model.max_tokens - len(prompt)
    asked = defaults.max_tokens if limits.max_tokens is None else limits.max_tokens
    if room < 1:
        raise ConfigError(
            f"the prompt has {len(prompt)} tokens; {bundle.name} captions have up to"
            f" {model.max_tokens}, so shorten it"
        )
    is_asked = limits.max_tokens is not None and limits.max_tokens != defaults.max_tokens
    if is_asked and asked is not None and asked > room:
        raise ConfigError(
            f"max_tokens is {asked}; {bundle.name} captions have up to {room}"
            " tokens after the prompt"
        )
    stop = defaults.stop if limits.stop is None else limits.stop
    stop_tokens = frozenset(_stop_token(text, tokenizer) for text in stop or ())
    rules = Rules(
        prompt=(*model.start_tokens, *_asked(limits, language, bundle), *prompt),
        stop=stop_tokens.union(model.stop_tokens),
        never=frozenset(model.never_tokens) - set(model.stop_tokens),
        forbidden=_spellings(limits.forbidden_words, bundle=bundle, tokenizer=tokenizer),
        min_tokens=limits.min_tokens,
        max_tokens=min(room, asked or room),
        no_repeat_ngram=limits.no_repeat_ngram,
        repetition_penalty=limits.repetition_penalty,
    )
    return rules, prompt


def _asked(limits: Limits, language: str, bundle: Description) -> tuple[int, ...]:
    """The tokens that ask for a language and a length."""
    language_tokens = bundle.language_tokens.get(language, ())
    if not bundle.detail_tokens:
        if limits.detail:
            raise ConfigError(
                f"{bundle.name} cannot be asked for {limits.detail} captions; use max_tokens, or a"
                " captioner that was trained with details"
            )
        return language_tokens
    tokens = bundle.detail_tokens.get(limits.detail or "normal")
    if tokens is None:
        known = ", ".join(bundle.detail_tokens)
        raise ConfigError(f"detail is {limits.detail!r}; choose one of {known}")
    return (*language_tokens, *tokens)


def known_tokens(
    text: str, what: str, *, bundle: Description, tokenizer: Tokenizer
) -> tuple[int, ...]:
    """Token ids of the text; `ConfigError` where the captioner does not know a word of it."""
    never = set(bundle.language_model.never_tokens)
    for word in text.split():
        if never.intersection(tokenizer.encode(word)):
            raise ConfigError(f"{what} has a word that {bundle.name} does not know: {word!r}")
    return tuple(tokenizer.encode(text.strip()))


def _stop_token(text: str, tokenizer: Tokenizer) -> int:
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise ConfigError(f"stop is {text!r}, which is {len(ids)} tokens; give one token's text")
    return ids[0]


def _spellings(
    words: tuple[str, ...], *, bundle: Description, tokenizer: Tokenizer
) -> tuple[tuple[int, ...], ...]:
    """Every way in which the words can be written: as given, capitalised, after a space.

    Words outside the vocabulary cannot be written anyway.
    """
    never = set(bundle.language_model.never_tokens)
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        if not word.strip():
            raise ConfigError("forbidden_words has an empty word; remove it")
        for form in {word, word.lower(), word.capitalize()}:
            for text in (form, f" {form}"):
                ids = tuple(tokenizer.encode(text))
                if not never.intersection(ids):
                    found[ids] = None
    return tuple(sorted(found))
