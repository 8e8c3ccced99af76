"""Which captions a step reads, and as which tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from capsmith.bundle import TextRules  # noqa: E402
from capsmith.data.manifest import Photo  # noqa: E402
from capsmith.data.photos import PhotoBytes  # noqa: E402
from capsmith.data.rows import CaptionLine, Place  # noqa: E402
from capsmith.errors import DataError  # noqa: E402
from capsmith.models.caption_model import CaptionModel  # noqa: E402
from capsmith.models.mappers import MLPConfig, MLPMapper  # noqa: E402
from capsmith.training.batches import Batch, Batches  # noqa: E402
from capsmith.training.examples import (  # noqa: E402
    Draw,
    Examples,
    Line,
    Order,
    detail_of,
    thirds,
    tokenise,
    with_details,
)
from capsmith.training.vocabulary import CaptionTokens  # noqa: E402
from capsmith.training.word_vocabulary import Lines, train_words  # noqa: E402
from tests.unit.models.toys import END, ROWS, START, WIDTH, language_model  # noqa: E402

FILE = Path("captions.csv")


def photo(number: int, *texts: str, weight: float = 1.0) -> Photo:
    lines = [
        CaptionLine(text=text, language="en", place=Place(FILE, number), weight=weight)
        for text in texts
    ]
    return Photo(
        id=f"{number}.jpg", source=PhotoBytes(Path(f"{number}.jpg")), captions=tuple(lines)
    )


def examples(lengths: list[list[int]], weights: list[float] | None = None) -> Examples:
    """Photos with captions of so many tokens each; token ids tell the caption."""
    lines: list[Line] = []
    of_photo = []
    for index, own in enumerate(lengths):
        weight = weights[index] if weights else 1.0
        first = len(lines)
        for length in own:
            ids = (2 + len(lines) % 60,) * length
            lines.append(Line(index, ids, is_cut=False, language="en", weight=weight))
        of_photo.append(tuple(range(first, len(lines))))
    photos = tuple(photo(index, *["a"] * len(own)) for index, own in enumerate(lengths))
    return Examples(photos, tuple(lines), tuple(of_photo))


def epoch(order: Order, number: int) -> list[Draw]:
    first = number * order.steps_per_epoch
    return [order.draw(first + step) for step in range(order.steps_per_epoch)]


def test_every_caption_comes_exactly_once_an_epoch() -> None:
    data = examples([[3, 5]] * 30)
    order = Order(data, batch=6, captions_a_photo=0, seed=1)
    assert order.steps_per_epoch == 10
    drawn = []
    for number in range(3):
        lines = [line for draw in epoch(order, number) for line in draw.lines]
        assert sorted(lines) == list(range(60))
        drawn.append(lines)
    assert drawn[0] != drawn[1]
    for draw in epoch(order, 0):
        owners = [draw.photos[owner] for owner in draw.owner]
        assert owners == [data.lines[line].photo for line in draw.lines]
        assert len(set(draw.photos)) == len(draw.photos)


def test_weights_are_kept_to() -> None:
    order = Order(
        examples([[4]] * 40, [1.0] * 20 + [4.0] * 20), batch=5, captions_a_photo=0, seed=0
    )
    assert order.count == 25  # of weight 4 all, of weight 1 every fourth
    for number in range(4):
        counts = Counter(line for draw in epoch(order, number) for line in draw.lines)
        assert sum(counts[line] for line in range(20)) == 5
        assert all(counts[line] == 1 for line in range(20, 40))
    seen = {line for number in range(40) for draw in epoch(order, number) for line in draw.lines}
    assert len(seen) == 40


def test_captions_of_like_length_go_together() -> None:
    lengths = [[1 + (number * 7) % 20] for number in range(256)]
    order = Order(examples(lengths), batch=8, captions_a_photo=0, seed=0)

    def padded(draws: list[tuple[int, ...]]) -> int:
        sizes = [[lengths[line][0] for line in lines] for lines in draws]
        return sum(max(size) * len(size) - sum(size) for size in sizes)

    grouped = [draw.lines for draw in epoch(order, 0)]
    flat = torch.randperm(256, generator=torch.Generator().manual_seed(0)).tolist()
    random = [tuple(flat[i : i + 8]) for i in range(0, 256, 8)]
    assert padded(grouped) < 0.2 * padded(random)
    means = [sum(lengths[line][0] for line in lines) for lines in grouped]
    assert means != sorted(means)  # short batches do not all come first


def test_a_draw_follows_from_seed_and_step_alone() -> None:
    data = examples([[3, 5, 2]] * 20)
    for captions_a_photo in (0, 2):
        one, other, third = (
            Order(data, batch=7, captions_a_photo=captions_a_photo, seed=seed) for seed in (3, 3, 4)
        )
        steps = [29, 3, 11, 0, 30]
        ahead = {step: one.draw(step) for step in steps}
        assert {step: other.draw(step) for step in sorted(steps)} == ahead
        assert {step: third.draw(step) for step in steps} != ahead


def test_photos_with_some_of_their_captions() -> None:
    data = examples([[3, 5, 2], [4], [2, 2]] * 4)
    order = Order(data, batch=4, captions_a_photo=2, seed=0)
    assert order.steps_per_epoch == 3
    photos = [photo for draw in epoch(order, 0) for photo in draw.photos]
    assert sorted(photos) == list(range(12))
    for draw in epoch(order, 0):
        counts = Counter(draw.owner)
        for position, index in enumerate(draw.photos):
            own = [line for line, o in zip(draw.lines, draw.owner, strict=True) if o == position]
            assert counts[position] == min(2, len(data.of_photo[index]))
            assert set(own) <= set(data.of_photo[index])
            assert len(set(own)) == len(own)
    chosen = {draw.lines for number in range(6) for draw in epoch(order, number)}
    assert len(chosen) > 6


def test_a_captions_weight_is_how_often_it_is_drawn_of_its_photo() -> None:
    data = examples([[3, 3, 3]])
    weights = (1.0, 2.0, 5.0)
    lines = tuple(replace(line, weight=w) for line, w in zip(data.lines, weights, strict=True))
    data = Examples(data.photos, lines, data.of_photo)
    order = Order(data, batch=1, captions_a_photo=1, seed=0)
    drawn = Counter(order.draw(step).lines[0] for step in range(2000))
    for index, weight in enumerate(weights):
        assert drawn[index] / 2000 == pytest.approx(weight / 8, abs=0.04)


def test_details_are_thirds_of_each_languages_captions() -> None:
    data = examples([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    bounds = thirds(data)
    detailed = with_details(data, bounds)
    expected = ["short"] * 3 + ["normal"] * 3 + ["long"] * 3
    assert [line.detail for line in detailed.lines] == expected
    assert detail_of(99, "xx", bounds) == "normal"
    assert [line.detail for line in with_details(data, {}).lines] == ["normal"] * 9


def words() -> CaptionTokens:
    text = TextRules(lowercase_prompt=True, capitalise=True, final_period=True, join=" ")
    tokenizer = train_words({"en": Lines(captions=["a b c d e f"])}, {"en": text}, least_seen=1)
    ids = tokenizer.get_vocab()
    return CaptionTokens(
        tokenizer=tokenizer, text=text, start=(ids["<start>"],), end=ids["<stop>"], never=(),
        spoken=("en",),
        languages={},
    )  # fmt: skip


def test_long_captions_are_cut_or_refused_by_file_and_line() -> None:
    photos = [photo(7, "a b", "a b c d e")]
    tokens = words()
    made = tokenise(photos, tokens, max_tokens=3, positions=4)
    assert [len(line.ids) for line in made.lines] == [2, 3]
    assert [line.is_cut for line in made.lines] == [False, True]
    assert made.of_photo == ((0, 1),)
    tokenise(photos, tokens, max_tokens=0, positions=6)
    with pytest.raises(DataError, match=r"captions.csv:7: a caption of 5 tokens.*room for 4"):
        tokenise(photos, tokens, max_tokens=0, positions=5)
    with pytest.raises(DataError, match="no photo to train on"):
        tokenise([], tokens, max_tokens=0, positions=None)


class Numbers:
    """Inputs that are the number of the photo."""

    def __call__(self, examples: Examples, draw: Draw, seed: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(draw.photos, dtype=torch.float32)[:, None, None].expand(-1, 1, 20)


def batches(data: Examples, order: Order, process: int = 0, processes: int = 1) -> Batches:
    mapper = MLPMapper(MLPConfig(input_width=20, rows=ROWS, width=WIDTH))
    model = CaptionModel(mapper, language_model("gpt2"), start_tokens=[START], end_token=END)
    return Batches(order, Numbers(), model, process=process, processes=processes)


def test_a_cut_caption_does_not_train_its_end() -> None:
    data = examples([[2], [2]])
    cut = Line(1, data.lines[1].ids, is_cut=True, language="en", weight=1.0)
    data = Examples(data.photos, (data.lines[0], cut), data.of_photo)
    batch = batches(data, Order(data, batch=2, captions_a_photo=0, seed=0))[0]
    for row, owner in enumerate(batch.owner):
        index = batch.photos[int(owner)]
        assert batch.tokens[row, -1] == END
        assert batch.mask[row].tolist() == [True, True, True, index == 0]


def pairs(batch: Batch) -> Counter[tuple[int, tuple[int, ...]]]:
    """(photo that is read, real tokens) of each caption."""
    found: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for row, owner in enumerate(batch.owner):
        seen = int(batch.inputs[int(owner), 0, 0])
        assert seen == batch.photos[int(owner)]
        found[seen, tuple(batch.tokens[row][batch.mask[row]].tolist())] += 1
    return found


@pytest.mark.parametrize("captions_a_photo", [0, 2])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_read_what_one_reads(captions_a_photo: int, processes: int) -> None:
    data = examples([[3, 5, 2], [4, 1]] * 9)
    order = Order(data, batch=7, captions_a_photo=captions_a_photo, seed=0)
    alone = batches(data, order)
    shares = [batches(data, order, process, processes) for process in range(processes)]
    for step in range(5):
        parts = [pairs(share[step]) for share in shares]
        assert all(parts)
        assert sum(parts, Counter()) == pairs(alone[step])


def test_a_batch_must_be_enough_for_all_processes() -> None:
    data = examples([[3]] * 2)
    order = Order(data, batch=2, captions_a_photo=0, seed=0)
    with pytest.raises(DataError, match="a batch of 2 cannot be dealt to 3 processes"):
        batches(data, order, 0, 3)
