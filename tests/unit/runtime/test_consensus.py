from __future__ import annotations

from capsmith.runtime.consensus import by_consensus
from capsmith.runtime.rules import Hypothesis


def captions(*tokens: tuple[int, ...]) -> list[Hypothesis]:
    return [Hypothesis(ids, -1.0, "stop") for ids in tokens]


def test_the_caption_most_like_the_others_comes_first() -> None:
    odd, first, middle, last = captions(
        (90, 91, 92), (1, 2, 3, 4), (1, 2, 3, 4, 5), (2, 3, 4, 5, 6)
    )
    ranked = by_consensus([odd, first, middle, last])
    assert ranked[0] is middle
    assert ranked[-1] is odd


def test_word_order_counts() -> None:
    straight, alike, shuffled = captions((1, 2, 3, 4, 5), (1, 2, 3, 4, 6), (5, 3, 1, 4, 2))
    assert by_consensus([shuffled, straight, alike])[-1] is shuffled


def test_equals_stay_in_their_order() -> None:
    for hypotheses in (
        captions((1, 2), (3, 4)),
        captions((1,), (2,), (3,)),
        captions((), (1,), ()),
        captions((1, 2)),
        [],
    ):
        assert by_consensus(hypotheses)[:1] == hypotheses[:1]
