"""Embeddings: one vector of length 1 a picture or text, whose dot products are cosines."""

from __future__ import annotations

import numpy as np

from capsmith.description import Encoder
from capsmith.runtime.engine import Floats


def embedding(features: Floats, encoder: Encoder) -> Floats:
    """Embeddings float32 (n, d) of features float32 (n, k, d), as the bundle's encoder says."""
    return unit(features[:, 0] if encoder.embedding == "first" else features.mean(1))


def unit(vectors: Floats) -> Floats:
    """Vectors float32 (n, d) brought to length 1; a vector of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    made: Floats = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return made
