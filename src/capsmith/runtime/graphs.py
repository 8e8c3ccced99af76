"""A bundle's graphs, open: picture to features, features to prefix, and the decoder's engine."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from capsmith.bundle import Bundle, TextTower
from capsmith.errors import BundleError
from capsmith.registry import find_encoder
from capsmith.runtime.engine import Floats, OnnxEngine
from capsmith.runtime.session import open_session
from capsmith.runtime.text_tokenizer import TextTokenizer


class Graphs:
    """Opens the graphs that captioning needs, and the text tower when it is first used.

    Shared by threads. A forked child opens the graphs again, because the threads inside a session
    do not live on in it. Raises `BundleError` for a graph that is broken or does not fit.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None, device: str) -> None:
        self._bundle = bundle
        self._threads = threads
        self._device = device
        self._encoder_path = _encoder_path(bundle)
        self._lock = Lock()
        self._open: _Open | None = None
        self._text: _Text | None = None
        self._opened()
        _LIVING.add(self)

    def require_encoder(self) -> None:
        """Raise `BundleError` where pictures cannot be encoded."""
        if self._encoder_path is None:
            raise BundleError(
                f"{self._bundle.folder}: has no encoder.onnx, and the encoder that it needs,"
                f" {self._bundle.encoder.name}, is not in this installation;"
                " caption features instead of pictures"
            )

    def encode(self, pixels: Floats) -> Floats:
        """Features float32 (n, k, d) of pixels float32 (n, 3, height, width)."""
        self.require_encoder()
        encoder = self._opened().encoder
        assert encoder is not None
        return encoder.run_each(pixels)

    def prefix(self, features: Floats) -> Floats:
        """The mapper's rows float32 (n, P, D) of features float32 (n, k, d)."""
        return self._opened().mapper.run_each(features)

    @property
    def engine(self) -> OnnxEngine:
        """The decoder."""
        return self._opened().engine

    def require_text_tower(self) -> TextTower:
        """What the bundle says of its text tower; raises `BundleError` where it has none."""
        tower = self._bundle.text_tower
        if tower is None:
            raise BundleError(
                f"{self._bundle.folder}: has no text tower, so it cannot compare texts with"
                " pictures; give it one: capsmith text-tower"
            )
        return tower

    def embed_text(self, text: str) -> Floats:
        """The text tower's vector of one text, float32 (1, d), not normalised."""
        tower = self.require_text_tower()
        opened = self._text
        if opened is None:
            with self._lock:
                opened = self._text = self._text or self._open_text(tower)
        return opened.graph.run_each(np.array([opened.tokenizer.encode(text)], np.int64))

    def forget_after_fork(self) -> None:
        """In a forked child: open everything again when it is next needed."""
        # A session's end waits for its threads, which the child does not have: never end it.
        _ABANDONED.append((self._open, self._text))
        self._lock = Lock()
        self._open = self._text = None

    def _opened(self) -> _Open:
        opened = self._open
        if opened is None:
            with self._lock:
                opened = self._open = self._open or self._open_all()
        return opened

    def _open_all(self) -> _Open:
        bundle, folder = self._bundle, self._bundle.folder
        features = (bundle.encoder.rows, bundle.encoder.width)
        prefix = (bundle.prefix.rows, bundle.prefix.width)
        decoder = folder / "decoder.onnx"
        engine = OnnxEngine(self._session(decoder), name=str(decoder))
        if engine.vocab_size != bundle.language_model.vocab_size:
            raise BundleError(
                f"{decoder}: scores {engine.vocab_size} tokens where captioner.json says"
                f" {bundle.language_model.vocab_size}; export the bundle again"
            )
        path = self._encoder_path
        return _Open(
            encoder=self._graph(path, "pixels", "features", features) if path else None,
            mapper=self._graph(folder / "mapper.onnx", "features", "prefix", prefix),
            engine=engine,
        )

    def _open_text(self, tower: TextTower) -> _Text:
        folder, width = self._bundle.folder, self._bundle.encoder.width
        return _Text(
            tokenizer=TextTokenizer(folder / "text_tokenizer.json", max_tokens=tower.max_tokens),
            graph=self._graph(folder / "text.onnx", "tokens", "embedding", (width,)),
        )

    def _graph(self, path: Path, takes: str, gives: str, shape: tuple[int, ...]) -> _Graph:
        return _Graph(self._session(path), path, takes, gives, shape)

    def _session(self, path: Path) -> ort.InferenceSession:
        return open_session(path, threads=self._threads, device=self._device)


class _Graph:
    """One input, one output, both with the pictures on axis 0; `shape` is the output's rest."""

    def __init__(
        self,
        session: ort.InferenceSession,
        path: Path,
        takes: str,
        gives: str,
        shape: tuple[int, ...],
    ) -> None:
        inputs = [value.name for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]
        if inputs != [takes] or gives not in outputs:
            raise BundleError(
                f"{path}: takes {', '.join(inputs)} and gives {', '.join(outputs)}, where a bundle"
                f" has {takes} and {gives}; export it again"
            )
        self._session = session
        self._path = path
        self._takes = takes
        self._gives = gives
        self._shape = shape

    def run_each(self, rows: NDArray[Any]) -> Floats:
        """The outputs, float32 (n, *shape), of n rows.

        One by one: on a CPU a batch is no faster, and rounding then never depends on what else is
        in the batch.
        """
        made = [self._run(rows[index : index + 1]) for index in range(len(rows))]
        return np.concatenate(made) if made else np.zeros((0, *self._shape), np.float32)

    def _run(self, row: NDArray[Any]) -> Floats:
        try:
            made: Floats = self._session.run([self._gives], {self._takes: row})[0]
        except Exception as error:  # onnxruntime's errors share no narrower base class
            reason = " ".join(str(error).split())[:300]
            raise BundleError(f"{self._path}: cannot be run: {reason}") from error
        if made.dtype != np.float32 or made.shape != (1, *self._shape):
            raise BundleError(
                f"{self._path}: gives {made.dtype} {made.shape} where captioner.json says float32"
                f" {(1, *self._shape)}; export the bundle again"
            )
        return made


@dataclass(frozen=True, slots=True)
class _Open:
    encoder: _Graph | None
    mapper: _Graph
    engine: OnnxEngine


@dataclass(frozen=True, slots=True)
class _Text:
    tokenizer: TextTokenizer
    graph: _Graph


_LIVING: weakref.WeakSet[Graphs] = weakref.WeakSet()
_ABANDONED: list[object] = []


def _encoder_path(bundle: Bundle) -> Path | None:
    if bundle.has_encoder:
        return bundle.folder / "encoder.onnx"
    return find_encoder(bundle.encoder, bundle.preprocessing)


def _forget_all() -> None:
    for graphs in _LIVING:
        graphs.forget_after_fork()


if hasattr(os, "register_at_fork"):  # POSIX only
    os.register_at_fork(after_in_child=_forget_all)
