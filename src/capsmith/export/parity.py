"""Does the exported graph do what the module does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from capsmith.errors import BundleError
from capsmith.models.engine import DecodingStep, TorchEngine
from capsmith.runtime.decoding import Hypothesis, Rules, decode
from capsmith.runtime.engine import Engine, Floats, OnnxEngine, Want
from capsmith.runtime.session import open_session
from capsmith.types import Greedy


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderParity:
    """How far a decoder graph is from its module."""

    logits: float
    """Largest difference of a logit, both given the module's words, in standard deviations of the
    module's logits."""
    captions: float
    """Share of prefixes that both give the same greedy caption."""


def compare_decoder(
    module: DecodingStep, path: Path, prefix: Floats, rules: Rules, *, tolerance: float
) -> DecoderParity:
    """Caption `prefix` float32 (B, P, D) with the module and with the graph at `path`.

    Raises `BundleError` when a logit is further off than `tolerance` standard deviations.
    """
    graph = OnnxEngine(open_session(path, device="cpu"), name=str(path))
    original = TorchEngine(module, vocab_size=graph.vocab_size)
    captions = [decoded[0] for decoded in decode(original, prefix, Greedy(), rules)]
    same = [
        mine.token_ids == decoded[0].token_ids
        for mine, decoded in zip(captions, decode(graph, prefix, Greedy(), rules), strict=True)
    ]
    expected = _forced_logits(original, prefix, captions, rules)
    found = _forced_logits(graph, prefix, captions, rules)
    is_scored = np.isfinite(expected)  # but for the words of other languages
    difference = np.abs(found[is_scored] - expected[is_scored]).max() / expected[is_scored].std()
    if np.isfinite(found[~is_scored]).any():
        difference = np.inf
    parity = DecoderParity(logits=float(difference), captions=float(np.mean(same)))
    _require(path, parity.logits, tolerance)
    return parity


def compare_outputs(module: nn.Module, path: Path, inputs: Tensor, *, tolerance: float) -> float:
    """Largest difference between an encoder or mapper and its graph at `path`, on `inputs`.

    In standard deviations of the module's output. Raises `BundleError` beyond `tolerance`.
    """
    session = open_session(path, device="cpu")
    with torch.inference_mode():
        expected = module.eval()(inputs).numpy()
    output = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    difference = float(np.abs(output - expected).max() / expected.std())
    _require(path, difference, tolerance)
    return difference


def _forced_logits(
    engine: Engine, prefix: Floats, captions: Sequence[Hypothesis], rules: Rules
) -> Floats:
    """Logits float32 (steps, B, vocabulary) while the engine reads given captions.

    Short captions are read on with token 0, by every engine alike.
    """
    steps = max(len(caption.token_ids) for caption in captions)
    tokens = np.zeros((len(captions), steps), np.int64)
    for row, caption in zip(tokens, captions, strict=True):
        row[: len(caption.token_ids)] = caption.token_ids
    prompt = np.tile(np.array(rules.prompt, np.int64), (len(captions), 1))
    state, scores = engine.start(prefix, prompt, Want(logits=True))
    logits = [scores.logits]
    for column in tokens.T:
        state, scores = engine.step(state, column, np.arange(len(captions)), Want(logits=True))
        logits.append(scores.logits)
    return np.stack([array for array in logits if array is not None])


def _require(path: Path, difference: float, tolerance: float) -> None:
    # Not a number is beyond every tolerance.
    if not difference <= tolerance:
        raise BundleError(
            f"{path}: the graph is {difference:.2g} standard deviations off its module, more than"
            f" {tolerance:.2g}; export it in a higher precision"
        )
