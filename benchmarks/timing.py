"""Interleaved timings: every contender in turn, so that a slow minute hits them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

WARM_UPS = 3


def medians(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each contender, after `WARM_UPS` runs of each that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(WARM_UPS + repeats):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            if turn >= WARM_UPS:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def bar(ratio: float, least: float) -> str:
    """A ratio beside the bar that it should pass."""
    return f"{ratio:5.2f}x (bar {least:g}x: {'passed' if ratio >= least else 'MISSED'})"


@contextmanager
def timed(parts: dict[str, float], name: str) -> Iterator[None]:
    """Put the seconds that the block takes into `parts`."""
    begin = time.perf_counter()
    yield
    parts[name] = time.perf_counter() - begin
