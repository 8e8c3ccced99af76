"""The losses beside that of the captions."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from capsmith.errors import ConfigError  # noqa: E402
from capsmith.models.caption_model import CaptionModel  # noqa: E402
from capsmith.models.class_words import read_class_words  # noqa: E402
from capsmith.models.encoders import EfficientNetLite  # noqa: E402
from capsmith.models.hinted_mapper import HintedGridConfig, HintedGridMapper  # noqa: E402
from capsmith.models.language_models import (  # noqa: E402
    CrossAttentionConfig,
    CrossAttentionDecoder,
)
from capsmith.training.batches import Batch  # noqa: E402
from capsmith.training.beside import (  # noqa: E402
    KeptClasses,
    Text,
    TextsWithHints,
    WordTags,
    hint_tokens,
)
from capsmith.training.examples import Examples, Line  # noqa: E402
from capsmith.training.own_words import OwnWords  # noqa: E402

DOG, CAT, RUNS = 4, 5, 6
ALL_WORDS = OwnWords({}, 9)


def batch(inputs: torch.Tensor, photos: tuple[int, ...]) -> Batch:
    nothing = torch.zeros(1, 1, dtype=torch.int64)
    return Batch(inputs, nothing, nothing.bool(), nothing[0], photos)


def line(photo: int, *ids: int, language: str = "en") -> Line:
    return Line(photo, ids, is_cut=False, language=language, weight=1.0)


def test_tags_learn_which_words_a_photos_captions_have() -> None:
    torch.manual_seed(0)
    lines = (line(0, DOG, RUNS), line(0, DOG), line(1, CAT, CAT), line(1, RUNS, language="de"))
    data = Examples((), lines, ((0, 1), (2, 3)))
    tags = WordTags(data, [DOG, CAT, RUNS], 8, language="en").eval()
    features = torch.randn(2, 3, 8)
    seen = batch(features, (0, 1))
    optimizer = torch.optim.Adam(tags.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        tags(seen, features).backward()
        optimizer.step()
    told = tags.tell(features[:, 0]).sigmoid()
    expected = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(told, expected, atol=0.05, rtol=0)


def test_classes_are_kept_where_nothing_has_changed() -> None:
    torch.manual_seed(0)
    published = EfficientNetLite("lite0", classes=7).eval()
    kept = KeptClasses(published, 15)
    trunk, _ = published.split(15)
    with torch.no_grad():
        maps = trunk(torch.randn(3, 3, 224, 224))
    _, tail = EfficientNetLite("lite0", classes=7).split(15)
    tail.load_state_dict(published.split(15)[1].state_dict())
    assert kept(batch(maps, (0, 1, 2)), tail(maps)).item() == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        for parameter in tail.parameters():
            parameter.mul_(1.3)
    loss = kept(batch(maps, (0, 1, 2)), tail(maps))
    assert loss.item() > 1e-4
    loss.backward()
    assert not any(parameter.requires_grad for parameter in kept.parameters())


def captioner() -> CaptionModel:
    torch.manual_seed(0)
    mapper = HintedGridMapper(
        HintedGridConfig(input_width=8, rows=5, width=16, classes=4, words=2, hints=3, heads=2)
    )
    decoder = CrossAttentionDecoder(
        CrossAttentionConfig(vocab_size=9, width=16, layers=1, heads=2, positions=12)
    )
    return CaptionModel(mapper, decoder, start_tokens=[1], end_token=2)


def test_texts_teach_what_a_hint_means() -> None:
    model = captioner().eval()
    texts = [Text((7, DOG, 8), "en")] * 6 + [Text((7, CAT, 8), "en")] * 6
    loss = TextsWithHints(texts, {DOG: 0, CAT: 1}, ALL_WORDS, texts_a_step=8, label_smoothing=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(150):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    assert isinstance(model.mapper, HintedGridMapper)
    words = torch.tensor([[0, -1, -1], [1, -1, -1]])
    prefix, mask = model.mapper.of_words(torch.full((2, 3), 0.9), words)
    tokens = torch.tensor([[1, 7], [1, 7]])
    hidden = model.reader.hidden(tokens, prefix, torch.arange(2), mask)
    assert model.reader.head(hidden[:, -1]).argmax(1).tolist() == [DOG, CAT]


def test_the_same_seed_draws_the_same_texts() -> None:
    model = captioner().eval()
    texts = [Text((7, word, other), "en") for word in (DOG, CAT) for other in range(3, 9)]
    loss = TextsWithHints(texts, {DOG: 0}, ALL_WORDS, texts_a_step=3, label_smoothing=0.0)
    values = []
    for seed in (5, 6, 5):
        torch.manual_seed(seed)
        values.append(loss(model).item())
    assert values[0] == values[2] != values[1]
    with pytest.raises(ConfigError, match="no captions without"):
        TextsWithHints([], {DOG: 0}, ALL_WORDS, texts_a_step=3, label_smoothing=0.0)


def test_class_words_are_those_that_the_vocabulary_has(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text('["dog", ["tabby", "cat"], ["tench"], "zebra"]')
    vocabulary = {"cat": 5, "tabby": 3999, "dog": 4500, "dogs": 7, "zebra": 9000}
    found = read_class_words(path, vocabulary)
    assert found.words == ("cat", "dog", "zebra")
    expected = [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert found.table.tolist() == expected
    assert hint_tokens(found.words, vocabulary) == {5: 0, 4500: 1, 9000: 2, 7: 1}
    path.write_text('{"dog": 1}')
    with pytest.raises(ConfigError, match=r"words.json: must be a JSON list"):
        read_class_words(path, vocabulary)
