"""CLIPScore and RefCLIPScore, of vectors that any tower made.

Hessel, Holtzman, Forbes, Le Bras, Choi, *CLIPScore: A Reference-free Evaluation Metric for Image
Captioning*, EMNLP 2021, section 3. The paper's tower is CLIP ViT-B/32; with another one the numbers
are others, so that the tower's name belongs beside them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from capsmith.errors import DataError

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]

SCALE: Final = 2.5


def clip_scores(pictures: Vectors, captions: Vectors) -> Floats:
    """CLIPScore of each caption, float64 (n,): 2.5 * max(cosine, 0).

    pictures, captions: (n, d), of any length; row i of both belong together. Raises `DataError`
    where the shapes differ, or a number is not finite.
    """
    scores: Floats = SCALE * np.maximum(_cosines(pictures, captions), 0)
    return scores


def ref_clip_scores(
    pictures: Vectors, captions: Vectors, references: Vectors, owners: npt.NDArray[np.int64]
) -> Floats:
    """RefCLIPScore of each caption, float64 (n,): with the best reference, by harmonic mean.

    references: (m, d), all captions' references in a row; owners: int64 (m,), the caption that
    each belongs to, each caption at least once. The harmonic mean is that of the caption's
    CLIPScore and of max(cosine, 0) to the nearest reference, and 0 where one of them is.
    """
    alone = clip_scores(pictures, captions)
    nearest = np.zeros(len(captions))
    np.maximum.at(nearest, owners, _cosines(captions[owners], references))
    total = alone + nearest
    return np.divide(2 * alone * nearest, total, out=np.zeros(len(captions)), where=total > 0)


def _cosines(first: Vectors, second: Vectors) -> Floats:
    if first.shape != second.shape or first.ndim != 2:
        raise DataError(f"vectors are {first.shape} and {second.shape}; they must be (n, d) both")
    one, other = first.astype(np.float64), second.astype(np.float64)
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise DataError("a vector has a number that is not finite; encode the photos again")
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = np.einsum("nd,nd->n", one, other)
    cosines: Floats = np.divide(products, lengths, out=np.zeros(len(one)), where=lengths > 0)
    return cosines
