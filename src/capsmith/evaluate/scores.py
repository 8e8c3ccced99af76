"""All scores of a set of captions with their intervals, and two sets compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from capsmith.errors import DataError
from capsmith.evaluate.agreement import Agreement, agreement
from capsmith.evaluate.diversity import Diversity, diversity
from capsmith.evaluate.metrics import Captions, Floats, Metric, Scorer
from capsmith.evaluate.statistics import Interval, percentiles, resampled_sums


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """One metric: its corpus score with its 95 % interval, float64 (n,) of each caption, and
    float64 (resamples,) of each draw of the bootstrap."""

    interval: Interval
    per_caption: Floats
    draws: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Every metric by name, in the order of tables, and what the captions are like."""

    metrics: Mapping[str, Score]
    diversity: Diversity


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher the second system scores. `is_measurable`: the interval leaves out 0."""

    first: float
    second: float
    interval: Interval

    @property
    def is_measurable(self) -> bool:
        """Whether the 95 % interval of the difference lies on one side of 0."""
        return self.interval.low > 0 or self.interval.high < 0


def measure(captions: Captions, scorers: Mapping[str, Scorer]) -> Scores:
    """Score captions, one a photo, by each scorer."""
    metrics = per_caption(captions, scorers)
    return Scores(
        metrics={name: _with_draws(metric) for name, metric in metrics.items()},
        diversity=diversity(captions.tokens),
    )


def per_caption(captions: Captions, scorers: Mapping[str, Scorer]) -> dict[str, Metric]:
    """The metrics of all scorers by their names in tables."""
    return {name: m for scorer in scorers.values() for name, m in scorer(captions).items()}


def compare(first: Scores, second: Scores) -> dict[str, Difference]:
    """How much higher each metric of `second` is, by a paired bootstrap (Koehn, EMNLP 2004).

    Both must be of the same photos in the same order: a draw takes the same photos of both.
    Raises `DataError` where their numbers differ.
    """
    found = {}
    for name, one in first.metrics.items():
        other = second.metrics[name]
        if len(one.per_caption) != len(other.per_caption):
            counts = f"{len(one.per_caption)} and {len(other.per_caption)}"
            raise DataError(f"{counts} captions: compare captions of the same photos")
        value = other.interval.value - one.interval.value
        interval = percentiles(value, other.draws - one.draws)
        found[name] = Difference(one.interval.value, other.interval.value, interval)
    return found


def agree(metrics: Mapping[str, Metric], judgements: Floats) -> dict[str, Agreement]:
    """How each metric's scores of captions agree with people's, float64 (n,)."""
    return {name: agreement(metric.per_caption, judgements) for name, metric in metrics.items()}


def _with_draws(metric: Metric) -> Score:
    draws = metric.whole(resampled_sums(metric.parts))
    return Score(percentiles(metric.value, np.asarray(draws)), metric.per_caption, draws)
