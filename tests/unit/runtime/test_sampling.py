from __future__ import annotations

import numpy as np

from capsmith.runtime.sampling import drawn, filtered, sharpened, uniforms
from capsmith.types import Sample, TopN


def descending(rows: int, columns: int) -> np.ndarray:
    scores = np.random.default_rng(0).normal(scale=2, size=(rows, columns)).astype(np.float32)
    return -np.sort(-scores, axis=1)


def test_draws_follow_the_distribution() -> None:
    probabilities = filtered(descending(1, 8), Sample(temperature=1.5, top_p=0.95))
    numbers = (np.arange(20_000) + 0.5) / 20_000
    columns = drawn(np.repeat(probabilities, len(numbers), 0), numbers)
    shares = np.bincount(columns, minlength=8) / len(numbers)
    np.testing.assert_allclose(shares, probabilities[0], atol=1e-4)
    assert shares[-1] == 0


def test_no_number_draws_what_was_filtered() -> None:
    probabilities = np.array([[0.1] * 3 + [0.0], [1 / 3] * 3 + [0.0]])
    for number in (0.0, np.nextafter(1.0, 0.0)):
        assert (drawn(probabilities, np.full(2, number)) < 3).all()


def test_a_candidates_numbers_depend_on_seed_and_index_alone() -> None:
    numbers = uniforms(7, range(5), 9)
    np.testing.assert_array_equal(uniforms(7, range(3, 5), 9), numbers[3:])
    np.testing.assert_array_equal(uniforms(7, range(5), 4), numbers[:, :4])
    assert not np.array_equal(uniforms(8, range(5), 9), numbers)
    assert len(np.unique(numbers)) == numbers.size


def test_the_likeliest_token_is_always_kept() -> None:
    strict = Sample(top_k=1, top_p=1e-9, min_p=1.0)
    np.testing.assert_array_equal(filtered(descending(3, 5), strict), [[1, 0, 0, 0, 0]] * 3)


def test_top_n_raises_probabilities_to_the_exponent() -> None:
    scores, top_n = descending(2, 6), TopN(schedule=((2, 4), (5, 2)), exponent=3.0)
    powers = (np.exp(scores) / np.exp(scores).sum(1, keepdims=True)) ** 3
    for word, choices in {1: 4, 2: 4, 3: 2, 5: 2, 6: 1, 50: 1}.items():
        best = powers[:, :choices]
        expected = best / best.sum(1, keepdims=True)
        np.testing.assert_allclose(sharpened(scores, word, top_n), expected, rtol=1e-5)
