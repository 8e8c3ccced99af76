from __future__ import annotations

import numpy as np
import pytest

from capsmith.errors import DataError
from capsmith.evaluate.clipscore import clip_scores, ref_clip_scores

PICTURES = np.array([[1, 0], [0, 2], [1, 0], [0, 0]], np.float32)
CAPTIONS = np.array([[3, 4], [0, 1], [-1, 0], [1, 1]], np.float32)


def test_clipscore_is_two_and_a_half_times_the_cosine_if_positive():
    assert clip_scores(PICTURES, CAPTIONS) == pytest.approx([2.5 * 0.6, 2.5, 0, 0])


def test_refclipscore_is_the_harmonic_mean_with_the_nearest_reference():
    references = np.array([[1, 0], [4, 3], [0, -1], [-1, 0], [1, 0]], np.float32)
    owners = np.array([0, 0, 1, 2, 3])
    found = ref_clip_scores(PICTURES, CAPTIONS, references, owners)
    # Caption 0: 1.5 with its photo, cosines 0.6 and 0.96 with its references.
    assert found == pytest.approx([2 * 1.5 * 0.96 / (1.5 + 0.96), 0, 0, 0])


def test_vectors_that_do_not_belong_together_are_refused():
    with pytest.raises(DataError, match=r"vectors are \(4, 2\) and \(3, 2\)"):
        clip_scores(PICTURES, CAPTIONS[:3])
    broken = CAPTIONS.copy()
    broken[0, 0] = np.nan
    with pytest.raises(DataError, match="not finite"):
        clip_scores(PICTURES, broken)
