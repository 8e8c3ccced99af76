"""How well texts fit a picture, by the embeddings of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capsmith.runtime.engine import Floats
from capsmith.runtime.filters import log_softmax
from capsmith.types import Match


def matches(picture: Floats, texts: Sequence[str], vectors: Floats, scale: float) -> list[Match]:
    """The texts, the best first; equals stay in their order.

    picture: float32 (d,), vectors: float32 (n, d), all of length 1. scale: the tower's inverse
    temperature; probabilities are the softmax of the cosines times it (Radford et al. 2021).
    """
    cosines = vectors @ picture
    probabilities = np.exp(log_softmax((cosines * np.float32(scale))[None])[0])
    return [
        Match(text=texts[i], cosine=float(cosines[i]), probability=float(probabilities[i]))
        for i in np.argsort(-cosines, kind="stable").tolist()
    ]
