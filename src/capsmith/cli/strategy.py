"""From the command line's decoding options to one strategy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from capsmith.errors import ConfigError
from capsmith.types import Beam, Contrastive, Rerank, Sample, Strategy, TopN


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """The decoding options as given; `None` means not given."""

    num: int | None = None
    beam: int | None = None
    sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    top_n: bool = False
    contrastive: bool = False
    alpha: float | None = None
    rerank: Rerank | None = None


_BELONGS_TO = {
    "temperature": ("sample",),
    "top_k": ("sample", "contrastive"),
    "top_p": ("sample",),
    "min_p": ("sample",),
    "seed": ("sample", "top_n"),
    "alpha": ("contrastive",),
}


def choose_strategy(options: DecodingOptions, default: Strategy) -> Strategy:
    """The strategy that the options ask for; `default` is the bundle's.

    Raises `ConfigError` for options that contradict each other or that nothing would use.
    """
    chosen = [
        name
        for name in ("beam", "sample", "top_n", "contrastive")
        if getattr(options, name) not in (None, False)
    ]
    if len(chosen) > 1:
        raise ConfigError(f"choose one of {' and '.join(map(_flag, chosen))}")
    for name, owners in _BELONGS_TO.items():
        if getattr(options, name) is not None and not set(owners) & set(chosen):
            raise ConfigError(f"{_flag(name)} needs {' or '.join(map(_flag, owners))}")
    strategy = _strategy(options, default)
    if options.rerank is None:
        return strategy
    match strategy:
        case Beam(size=found) | Sample(candidates=found) if found > 1:
            return replace(strategy, rerank=options.rerank)
    raise ConfigError(
        "--rerank puts several captions in order; give --beam 2 or more, or --sample --num 2"
    )


def _strategy(options: DecodingOptions, default: Strategy) -> Strategy:
    if options.contrastive:
        return _contrastive(options)
    number = options.num or 1
    if options.sample:
        given = _given(options, "temperature", "top_k", "top_p", "min_p", "seed")
        return Sample(candidates=number, **given)
    if options.top_n:
        return TopN(candidates=number, **_given(options, "seed"))
    return _beam(options, number, default)


def _contrastive(options: DecodingOptions) -> Contrastive:
    if options.num not in (None, 1):
        raise ConfigError("--contrastive gives one caption a photo; leave --num out")
    given = _given(options, "alpha")
    if options.top_k is not None:
        given["k"] = options.top_k
    return Contrastive(**given)


def _beam(options: DecodingOptions, number: int, default: Strategy) -> Strategy:
    if options.beam is not None:
        if number > options.beam:
            raise ConfigError(f"--num {number} needs --beam {number} or more")
        return Beam(size=options.beam, candidates=number)
    if isinstance(default, Beam):
        return replace(default, candidates=number, size=max(default.size, number))
    return default if number == 1 else Beam(size=max(Beam().size, number), candidates=number)


# Any: the fields of several dataclasses pass through one dictionary of keyword arguments.
def _given(options: DecodingOptions, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
