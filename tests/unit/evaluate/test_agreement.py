from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsmith.errors import DataError
from capsmith.evaluate.agreement import agreement

GRADES = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), min_size=2, max_size=30)


def test_worked_by_hand():
    # 10 pairs; (1,2) is tied in the second, (2,3) in the first; of the other 8, 7 agree.
    found = agreement(np.array([1, 2, 2, 3, 4.0]), np.array([1, 1, 2, 4, 3.0]))
    assert found.kendall_b == pytest.approx((7 - 1) / math.sqrt(9 * 9))
    assert found.kendall_c == pytest.approx(2 * (7 - 1) * 4 / (5**2 * 3))
    # Ranks 1, 2.5, 2.5, 4, 5 and 1.5, 1.5, 3, 5, 4.
    ranks = np.corrcoef([1, 2.5, 2.5, 4, 5], [1.5, 1.5, 3, 5, 4])[0, 1]
    assert found.spearman == pytest.approx(ranks)
    assert found.pearson == pytest.approx(np.corrcoef([1, 2, 2, 3, 4], [1, 1, 2, 4, 3])[0, 1])


@settings(max_examples=100, deadline=None)
@given(GRADES)
def test_kendall_counts_every_pair(pairs):
    first, second = (np.array(column, np.float64) for column in zip(*pairs, strict=True))
    signs = [
        np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])
        for i, j in itertools.combinations(range(len(pairs)), 2)
    ]
    untied = [
        sum(column[i] != column[j] for i, j in itertools.combinations(range(len(pairs)), 2))
        for column in (first, second)
    ]
    found = agreement(first, second)
    if not all(untied):
        assert math.isnan(found.kendall_b)
        assert math.isnan(found.pearson)
        return
    assert found.kendall_b == pytest.approx(sum(signs) / math.sqrt(math.prod(untied)))
    fewest = min(len(set(first)), len(set(second)))
    expected = 2 * sum(signs) * fewest / (len(pairs) ** 2 * (fewest - 1))
    assert found.kendall_c == pytest.approx(expected)


def test_perfect_agreement_and_its_opposite():
    values = np.arange(9.0)
    up, down = agreement(values, values**3), agreement(values, -values)
    assert (up.kendall_b, up.kendall_c, up.spearman) == pytest.approx((1, 1, 1))
    assert (down.kendall_b, down.spearman, down.pearson) == pytest.approx((-1, -1, -1))


def test_scores_that_differ_by_rounding_alone_are_tied():
    exact = agreement(np.array([0.3, 0.3, 1]), np.array([1, 2, 3.0]))
    assert agreement(np.array([0.1 + 0.2, 0.3, 1]), np.array([1, 2, 3.0])) == exact


@pytest.mark.parametrize(
    ("scores", "judgements", "message"),
    [
        ([1, 2], [1], "2 scores for 1"),
        ([1], [1], "two judgements"),
        ([1, 2], [1, math.nan], "finite"),
    ],
)
def test_what_cannot_be_correlated_is_refused(scores, judgements, message):
    with pytest.raises(DataError, match=message):
        agreement(np.array(scores, np.float64), np.array(judgements, np.float64))
