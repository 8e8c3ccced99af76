"""The captioner: pictures in, captions out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from capsmith.bundle import Bundle
from capsmith.errors import ConfigError, DataError, ImageError
from capsmith.registry import DEFAULT, open_bundle
from capsmith.runtime.constraints import known_tokens, resolve_limits
from capsmith.runtime.embedding import embedding, unit
from capsmith.runtime.engine import Floats
from capsmith.runtime.graphs import Graphs
from capsmith.runtime.match import matches
from capsmith.runtime.pictures import Picture, PictureLimits, open_picture
from capsmith.runtime.plan import Plan
from capsmith.runtime.preprocess import to_pixels
from capsmith.runtime.read_ahead import read_ahead
from capsmith.runtime.session import usable_cpus
from capsmith.runtime.thumbnail import is_notebook, thumbnail
from capsmith.runtime.tokenizer import Tokenizer
from capsmith.types import Beam, Caption, Limits, Match, Sample, Strategy

T = TypeVar("T")

OnError = Callable[[int, ImageError], object]
OpenUrl = Callable[[str], bytes]

_BATCH_SIZE = 16


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    device: str = "auto",
    open_url: OpenUrl | None = None,
    picture_limits: PictureLimits | None = None,
) -> Captioner:
    """Load a captioner: the embedded one, or a bundle by name or folder.

    threads: CPU threads of each graph (default: all). device: "auto", or one that the installed
    onnxruntime offers ("cpu", "cuda", "directml", "coreml"). open_url: called with the address
    where a picture is given as one (for instance `capsmith.fetch.picture`); without it addresses
    are refused. picture_limits: what pictures may cost.

    Raises `BundleError` for a bundle that is missing or broken, `ConfigError` for an option.
    """
    options = _Options(
        threads=threads, device=device, open_url=open_url, picture_limits=picture_limits
    )
    return Captioner(open_bundle(DEFAULT if model is None else model), options)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    threads: int | None
    device: str
    open_url: OpenUrl | None
    picture_limits: PictureLimits | None


@dataclass(frozen=True, slots=True)
class _Input:
    """A picture as the encoder takes it."""

    pixels: Floats
    thumbnail: bytes | None


class Captioner:
    """A loaded bundle. Made by `load`.

    One captioner serves many threads at once. It is pickled as the bundle's path and its options,
    and opens its graphs again after a fork. Its memory does not grow with the number of pictures.
    The caption of a picture does not depend on the other pictures.
    """

    def __init__(self, bundle: Bundle, options: _Options) -> None:
        self._bundle = bundle
        self._options = options
        self._graphs = Graphs(bundle, threads=options.threads, device=options.device)
        self._tokenizer = Tokenizer(bundle.folder / "tokenizer.json", bundle.text)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reload, (os.fspath(self._bundle.folder), self._options)

    def __repr__(self) -> str:
        return f"<Captioner {self._bundle.name} {self._bundle.version}>"

    @property
    def bundle(self) -> Bundle:
        """What the captioner's bundle says about itself."""
        return self._bundle

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of captions; the first is the default."""
        return self._bundle.languages

    def caption(
        self,
        picture: Picture,
        strategy: Strategy | None = None,
        *,
        limits: Limits | None = None,
        language: str | None = None,
    ) -> Caption:
        """Caption one picture; strategy and limits are the bundle's where none are given.

        Raises `ImageError` for a picture that cannot be read, and `ConfigError` for an option.
        """
        plan = self._plan(strategy, limits, language)
        read = self._read(picture, keep_thumbnail=is_notebook())
        return plan.captions(self._graphs.encode(read.pixels[None]), [read.thumbnail])[0]

    def caption_many(
        self,
        pictures: Iterable[Picture],
        strategy: Strategy | None = None,
        *,
        limits: Limits | None = None,
        language: str | None = None,
        on_error: OnError | None = None,
        batch_size: int = _BATCH_SIZE,
    ) -> list[Caption]:
        """Caption pictures, in their order, `batch_size` at a time.

        `on_error` is told the index and the error of each picture that cannot be read; such a
        picture has no caption in the list. Without it the first one raises `ImageError`.
        """
        return list(
            self.iter_captions(
                pictures,
                strategy,
                limits=limits,
                language=language,
                on_error=on_error,
                batch_size=batch_size,
            )
        )

    def iter_captions(
        self,
        pictures: Iterable[Picture],
        strategy: Strategy | None = None,
        *,
        limits: Limits | None = None,
        language: str | None = None,
        on_error: OnError | None = None,
        batch_size: int = _BATCH_SIZE,
    ) -> Iterator[Caption]:
        """As `caption_many`, lazily: at most two batches of pictures are in memory.

        Pictures are read on worker threads while the graphs run. `on_error` is called in the
        pictures' order: after the caption of the picture before, before that of the next.
        """
        plan = self._plan(strategy, limits, language)
        keep = is_notebook()
        batches = self._batches(pictures, batch_size, keep_thumbnail=keep)
        return self._iter_captions(batches, plan, on_error)

    def _iter_captions(
        self, batches: Iterator[list[_Input | ImageError]], plan: Plan, on_error: OnError | None
    ) -> Iterator[Caption]:
        index = 0
        for batch in batches:
            good = [read for read in batch if isinstance(read, _Input)]
            captions = iter(self._caption_inputs(good, plan))
            for read in batch:
                if isinstance(read, _Input):
                    yield next(captions)
                elif on_error is None:
                    raise read
                else:
                    on_error(index, read)
                index += 1

    def caption_features(
        self,
        features: Floats,
        strategy: Strategy | None = None,
        *,
        limits: Limits | None = None,
        language: str | None = None,
        batch_size: int = _BATCH_SIZE,
    ) -> list[Caption]:
        """Caption pictures by their features, as `encode` gave them: float32 (n, k, d).

        Raises `DataError` for another shape or type.
        """
        plan = self._plan(strategy, limits, language)
        _check_batch_size(batch_size)
        encoder = self._bundle.encoder
        features = np.asarray(features)
        if features.dtype != np.float32 or features.shape[1:] != (encoder.rows, encoder.width):
            raise DataError(
                f"features are {features.dtype} {features.shape}; {self._bundle.name} takes"
                f" float32 (n, {encoder.rows}, {encoder.width}), as encode() gives them"
            )
        captions: list[Caption] = []
        for start in range(0, len(features), batch_size):
            batch = features[start : start + batch_size]
            captions += plan.captions(batch, [None] * len(batch))
        return captions

    def encode(self, pictures: Iterable[Picture], *, batch_size: int = _BATCH_SIZE) -> Floats:
        """Features float32 (n, k, d) of the pictures: k rows each, k = 1 for a pooled encoder.

        Raises `ImageError` at the first picture that cannot be read.
        """
        encoder = self._bundle.encoder
        made = [np.zeros((0, encoder.rows, encoder.width), np.float32)]
        for batch in self._batches(pictures, batch_size, keep_thumbnail=False):
            for read in batch:
                if isinstance(read, ImageError):
                    raise read
                made.append(self._graphs.encode(read.pixels[None]))
        return np.concatenate(made)

    def embed(self, pictures: Iterable[Picture], *, batch_size: int = _BATCH_SIZE) -> Floats:
        """One vector of length 1 a picture, float32 (n, d): a dot product is a cosine.

        Raises `ImageError` at the first picture that cannot be read.
        """
        return embedding(self.encode(pictures, batch_size=batch_size), self._bundle.encoder)

    def embed_text(self, texts: Iterable[str]) -> Floats:
        """One vector of length 1 a text, float32 (n, d), in the space of `embed`.

        A text's vector is the same alone and among others. Any text has one, the empty one too; a
        text of more than `bundle.text_tower.max_tokens` tokens is cut there. Raises `BundleError`
        where the bundle has no text tower.
        """
        self._graphs.require_text_tower()
        rows = [self._graphs.embed_text(text) for text in _listed(texts)]
        return unit(np.concatenate([np.zeros((0, self._bundle.encoder.width), np.float32), *rows]))

    def match(self, picture: Picture, texts: Iterable[str]) -> tuple[Match, ...]:
        """How well each text fits the picture, the best first; equals stay in their order.

        Raises `BundleError` where the bundle has no text tower, and `ImageError` for a picture
        that cannot be read.
        """
        texts = tuple(_listed(texts))
        vectors = self.embed_text(texts)
        if not texts:
            return ()
        scale = self._graphs.require_text_tower().scale
        return tuple(matches(self.embed([picture])[0], texts, vectors, scale))

    def stream(
        self,
        picture: Picture,
        strategy: Strategy | None = None,
        *,
        limits: Limits | None = None,
        language: str | None = None,
    ) -> Iterator[str]:
        """Pieces of the caption's text as they are decided; joined they are the caption's text.

        Raises as `caption` does, before the first piece.
        """
        plan = self._plan(strategy, limits, language)
        read = self._read(picture, keep_thumbnail=False)
        return plan.stream(self._graphs.encode(read.pixels[None]))

    def score(
        self,
        picture: Picture,
        text: str,
        *,
        language: str | None = None,
    ) -> float:
        """Natural log-probability of the text as the picture's caption, its end included.

        Raises `ConfigError` where the captioner does not know a word of the text.
        """
        plan = self._plan(None, Limits(), language)
        text = plan.tokenizer.without_final_period(text)
        tokens = known_tokens(text, "the text", bundle=self._bundle, tokenizer=plan.tokenizer)
        read = self._read(picture, keep_thumbnail=False)
        return plan.score(self._graphs.encode(read.pixels[None]), tokens)

    def _plan(self, strategy: Strategy | None, limits: Limits | None, language: str | None) -> Plan:
        language = self.languages[0] if language is None else language
        if language not in self.languages:
            raise ConfigError(
                f"language {language!r} is not in {self._bundle.name}; it has:"
                f" {', '.join(self.languages)}"
            )
        tokenizer = self._tokenizer.for_text(self._bundle.text_of(language))
        rules, prompt = resolve_limits(limits, language, bundle=self._bundle, tokenizer=tokenizer)
        strategy = self._bundle.decoding.strategy if strategy is None else strategy
        if isinstance(strategy, Beam | Sample) and strategy.rerank == "match":
            self._graphs.require_text_tower()
        return Plan(
            self._graphs, tokenizer, strategy, rules, prompt, language, self._bundle.encoder
        )

    def _read(self, picture: Picture, *, keep_thumbnail: bool) -> _Input:
        preprocessing = self._bundle.preprocessing
        image = open_picture(
            picture,
            min_side=(preprocessing.width, preprocessing.height),
            limits=self._options.picture_limits,
            open_url=self._options.open_url,
        )
        pixels = to_pixels(image, preprocessing)
        return _Input(pixels, thumbnail(image) if keep_thumbnail else None)

    def _batches(
        self, pictures: Iterable[Picture], batch_size: int, *, keep_thumbnail: bool
    ) -> Iterator[list[_Input | ImageError]]:
        self._graphs.require_encoder()
        _check_batch_size(batch_size)

        def read(picture: Picture) -> _Input:
            return self._read(picture, keep_thumbnail=keep_thumbnail)

        workers = min(usable_cpus(), 4)
        futures = read_ahead(read, _listed(pictures), batch_size=batch_size, workers=workers)
        return ([_outcome(future) for future in batch] for batch in futures)

    def _caption_inputs(self, inputs: Sequence[_Input], plan: Plan) -> list[Caption]:
        if not inputs:
            return []
        features = self._graphs.encode(np.stack([read.pixels for read in inputs]))
        return plan.captions(features, [read.thumbnail for read in inputs])


def _reload(folder: str, options: _Options) -> Captioner:
    return Captioner(open_bundle(Path(folder)), options)


def _outcome(future: Future[_Input]) -> _Input | ImageError:
    try:
        return future.result()
    except ImageError as error:
        return error


def _listed(items: Iterable[T]) -> Iterable[T]:
    """Refuse one string or path where many are meant: its letters are no pictures."""
    if isinstance(items, str | bytes | bytearray | os.PathLike) or not isinstance(items, Iterable):
        raise ConfigError(f"give a list, not one {type(items).__name__}")
    return items


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
