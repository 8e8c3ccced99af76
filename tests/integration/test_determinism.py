"""The shipped captioner says the same of a photo alone, in any batch, order and thread count."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle

import numpy as np
import pytest
from numpy.typing import NDArray

import capsmith
from capsmith import registry
from tests.photos import PHOTOS, photo

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]


def crops(count: int) -> list[Pixels]:
    """Parts of real photos, each somewhere else and of another size, so that captions differ."""
    numbers = random.Random(0)
    photos = [photo(name) for name in PHOTOS]
    made = []
    for index in range(count):
        whole = photos[index % len(photos)]
        side = [int(length * numbers.uniform(0.4, 1.0)) for length in whole.size]
        left, top = (
            numbers.randint(0, length - part) for length, part in zip(whole.size, side, strict=True)
        )
        made.append(np.asarray(whole.crop((left, top, left + side[0], top + side[1]))))
    return made


def in_batches(features: Features) -> Iterator[Features]:
    """The same rows, in batches of 2 to 16 by turns."""
    start = 0
    for size in cycle(range(2, 17)):
        if start >= len(features):
            return
        yield features[start : start + size]
        start += size


@pytest.mark.slow
@pytest.mark.skipif(not registry.names(), reason="no bundle is embedded in this tree")
@pytest.mark.parametrize("count", [pytest.param(120, marks=pytest.mark.ci), 500])
def test_captions_depend_on_the_photo_alone(count: int) -> None:
    pictures = crops(count)
    one, two = (capsmith.load(threads=threads) for threads in (1, 2))
    alone = [one.caption(picture) for picture in pictures]
    assert len({caption.text for caption in alone}) > 20
    order = random.Random(1).sample(range(count), count)
    shuffled = [pictures[index] for index in order]
    runs = [two.caption_many(shuffled, batch_size=8)]
    for captioner in (one, two):
        batches = in_batches(captioner.encode(shuffled))
        runs.append([caption for batch in batches for caption in captioner.caption_features(batch)])
    for captions in runs:
        for index, caption in zip(order, captions, strict=True):
            assert caption.text == alone[index].text
            assert caption.token_ids == alone[index].token_ids
            assert caption.logprob == pytest.approx(alone[index].logprob, abs=1e-5)
