"""Drawing the next token: filters of the distribution, and one stream of numbers a caption."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from capsmith.runtime.engine import Floats, Ints
from capsmith.types import Sample, TopN

Probabilities = NDArray[np.float64]


def filtered(scores: Floats, sample: Sample) -> Probabilities:
    """Distribution to draw from, float64 (N, K), of scores float32 (N, K) that descend.

    In this order: temperature; the top_k likeliest; the smallest set of the likeliest whose
    probabilities reach top_p (Holtzman et al. 2020, section 3.1); tokens at least min_p times as
    likely as the likeliest (Nguyen et al. 2024). The likeliest is always kept.
    """
    probabilities = _softmax(scores / sample.temperature)
    if sample.top_k:
        probabilities[:, sample.top_k :] = 0
        probabilities /= probabilities.sum(1, keepdims=True)
    if sample.top_p < 1:
        before = np.cumsum(probabilities, 1) - probabilities
        probabilities = np.where(before < sample.top_p, probabilities, 0)
        probabilities /= probabilities.sum(1, keepdims=True)
    if sample.min_p > 0:
        kept = probabilities >= sample.min_p * probabilities[:, :1]
        probabilities = np.where(kept, probabilities, 0)
        probabilities /= probabilities.sum(1, keepdims=True)
    return probabilities


def sharpened(scores: Floats, word: int, top_n: TopN) -> Probabilities:
    """Distribution of `TopN` over word number `word` (from 1), of scores (N, K) that descend."""
    choices = next((choices for last, choices in top_n.schedule if word <= last), 1)
    return _softmax(scores[:, :choices] * top_n.exponent)


def uniforms(seed: int, candidates: range, length: int) -> Probabilities:
    """Numbers in [0, 1), float64 (len(candidates), length), a row a candidate.

    A candidate's numbers depend on seed and its index alone, never on its place in a batch.
    """
    return np.stack(
        [np.random.default_rng([seed, candidate]).random(length) for candidate in candidates]
    )


def drawn(probabilities: Probabilities, numbers: Probabilities) -> Ints:
    """Columns int64 (N,) where the running sum of descending probabilities passes the numbers."""
    cumulative = np.cumsum(probabilities, 1)
    passed = (cumulative <= numbers[:, None] * cumulative[:, -1:]).sum(1)
    # A number so near 1 that the product rounds up to the whole sum would pass the last column.
    columns: Ints = np.minimum(passed, (probabilities > 0).sum(1) - 1)
    return columns


def _softmax(scores: Floats) -> Probabilities:
    powers: Probabilities = np.exp((scores - scores[:, :1]).astype(np.float64))
    probabilities: Probabilities = powers / powers.sum(1, keepdims=True)
    return probabilities
