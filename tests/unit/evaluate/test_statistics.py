from __future__ import annotations

import numpy as np
import pytest

from capsmith.errors import DataError
from capsmith.evaluate.lexical import bleu, bleu_statistics
from capsmith.evaluate.report import report
from capsmith.evaluate.statistics import bleu_intervals, mean_interval, resample_counts

CANDIDATES = ["a dog runs on grass", "a cat sits on a mat", "two men ride bikes", "a red bus"]
REFERENCES = [
    ["a dog runs on the grass", "a brown dog runs"],
    ["a cat on a mat", "the cat sits"],
    ["two men on bikes", "men ride bikes on a road"],
    ["a red bus on a street", "the bus is red"],
]


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(5, 2, size=400)
    interval = mean_interval(values)
    error = values.std() / np.sqrt(len(values))
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_bleu_of_a_draw_is_the_bleu_of_its_photos():
    statistics = bleu_statistics(CANDIDATES, REFERENCES)
    draw = resample_counts(4, resamples=1, seed=3)[0]
    photos = np.repeat(np.arange(4), draw)
    expected = bleu([CANDIDATES[i] for i in photos], [REFERENCES[i] for i in photos])
    for interval, score in zip(
        bleu_intervals(statistics, resamples=1, seed=3), expected, strict=True
    ):
        assert interval.low == interval.high == pytest.approx(score)


def test_intervals_are_seeded():
    values = np.arange(20.0)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values)


def test_photos_that_score_the_same_leave_no_doubt():
    interval = mean_interval(np.full(7, 0.5))
    assert (interval.low, interval.value, interval.high) == pytest.approx((0.5, 0.5, 0.5))
    assert str(interval) == "0.500 [0.500, 0.500]"


def test_a_report_reads_lists():
    for candidates, references in ((["a dog"], ["a dog"]), ("a", [["a"]])):
        with pytest.raises(DataError, match="one text stands where a list is read"):
            report(candidates, references)


def test_no_photos_are_refused():
    with pytest.raises(DataError, match="no photos"):
        mean_interval(np.zeros(0))


def test_a_report_scores_plain_captions():
    scores = report([*CANDIDATES[:3], "A dog runs on grass."], REFERENCES)
    assert scores.photos == 4
    assert scores.distinct_share == 0.75
    assert scores.mean_words == pytest.approx((5 + 6 + 4 + 5) / 4)
    assert scores.cider.low <= scores.cider.value <= scores.cider.high
    assert scores.to_dict()["bleu"][3]["value"] == pytest.approx(scores.bleu[3].value)
