"""Language models as decoding sees them: the `Engine` protocol, and the engine that runs ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from capsmith.errors import BundleError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

State = object
"""What an engine remembers of the rows so far. Opaque: only the engine that made it reads it."""


@dataclass(frozen=True, slots=True)
class Want:
    """What a strategy needs to know of every row after a step."""

    top: int = 1
    """How many likeliest tokens; more than the vocabulary has means all of them."""
    logits: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says after the last token of each of N rows."""

    top_logprobs: Floats
    """float32 (N, top): natural log, descending."""
    top_ids: Ints
    """int64 (N, top)."""
    logits: Floats | None
    """float32 (N, vocabulary), raw; None unless wanted."""
    hidden: Floats | None
    """float32 (N, width): the last hidden state, after the final norm; None unless wanted."""


class Engine(Protocol):
    """A language model that continues a prefix of vectors.

    Steps are pure: they read a state and give a new one, and the old one stays valid, so that
    beams may branch from it. An engine is shared by threads.
    """

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are scored."""
        ...

    def start(self, prefix: Floats, prompt: Ints, want: Want) -> tuple[State, Scores]:
        """Read the prefix and the prompt of B pictures.

        prefix: float32 (B, P, D), the mapper's rows. prompt: int64 (B, T), start tokens and the
        words that the caption begins with; T is 0 for a model that needs neither.
        """
        ...

    def step(self, state: State, tokens: Ints, parents: Ints, want: Want) -> tuple[State, Scores]:
        """Read one token in each of N rows.

        tokens, parents: int64 (N,). Row n continues row parents[n] of `state` with tokens[n]; a
        row may be continued by several rows, or by none.
        """
        ...


@dataclass(frozen=True, slots=True)
class _OnnxState:
    values: Mapping[str, Floats]
    """Graph input name -> value with the rows on axis 0. Never written to once made."""


class OnnxEngine:
    """Runs a decoder graph (docs/design, "The decoder graph") in onnxruntime.

    The graph itself gathers the state's rows by `parents`. Holds nothing that changes, so threads
    share it.
    """

    def __init__(self, session: ort.InferenceSession, *, name: str = "decoder.onnx") -> None:
        """Raises `BundleError` naming `name` when the graph is not a decoder."""
        self._session = session
        inputs = {value.name: value for value in session.get_inputs()}
        outputs = {value.name: value for value in session.get_outputs()}
        self._states = {
            key: tuple(size if isinstance(size, int) else 0 for size in value.shape[1:])
            for key, value in inputs.items()
            if key.startswith("state.")
        }
        next_of_state = {key: "next." + key.removeprefix("state.") for key in self._states}
        missing = sorted(
            {"tokens", "prefix", "parents", "top"} - inputs.keys()
            | {"top_logprobs", "top_ids", "logits", "hidden", *next_of_state.values()}
            - outputs.keys()
        )
        if missing:
            raise BundleError(f"{name}: not a decoder graph, it lacks {', '.join(missing)}")
        if not isinstance(outputs["logits"].shape[1], int):
            raise BundleError(f"{name}: not a decoder graph, its vocabulary has no fixed size")
        self._vocab_size = int(outputs["logits"].shape[1])
        self._prefix_width = int(inputs["prefix"].shape[2])
        self._next_names = list(next_of_state.values())

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are scored."""
        return self._vocab_size

    def start(self, prefix: Floats, prompt: Ints, want: Want) -> tuple[State, Scores]:
        """See `Engine.start`."""
        rows = prefix.shape[0]
        empty = {key: np.zeros((rows, *shape), np.float32) for key, shape in self._states.items()}
        return self._run(_OnnxState(empty), prompt, prefix, np.arange(rows, dtype=np.int64), want)

    def step(self, state: State, tokens: Ints, parents: Ints, want: Want) -> tuple[State, Scores]:
        """See `Engine.step`."""
        if not isinstance(state, _OnnxState):
            raise TypeError(f"state is a {type(state).__name__}, not one that this engine made")
        nothing = np.zeros((len(tokens), 0, self._prefix_width), np.float32)
        return self._run(state, tokens[:, None], nothing, parents, want)

    def _run(
        self, state: _OnnxState, tokens: Ints, prefix: Floats, parents: Ints, want: Want
    ) -> tuple[State, Scores]:
        feeds = {
            **state.values,
            "tokens": tokens,
            "prefix": prefix,
            "parents": parents,
            "top": np.array([min(want.top, self._vocab_size)], np.int64),
        }
        asked = {"logits": want.logits, "hidden": want.hidden}
        names = ["top_logprobs", "top_ids", *(key for key, is_asked in asked.items() if is_asked)]
        values = self._session.run([*names, *self._next_names], feeds)
        scores = dict(zip(names, values, strict=False))
        following = dict(zip(self._states, values[len(names) :], strict=True))
        return _OnnxState(following), Scores(
            scores["top_logprobs"], scores["top_ids"], scores.get("logits"), scores.get("hidden")
        )
