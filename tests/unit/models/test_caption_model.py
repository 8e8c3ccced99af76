"""Training a whole captioner where the ancestors' code was wrong (docs/design, section 8)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from capsmith.errors import ConfigError  # noqa: E402
from capsmith.models.caption_model import IGNORED, CaptionModel  # noqa: E402
from capsmith.models.engine import TorchEngine  # noqa: E402
from capsmith.models.gpt2 import load_gpt2  # noqa: E402
from capsmith.models.mappers import MLPConfig, MLPMapper  # noqa: E402
from capsmith.runtime.decoding import Rules, decode  # noqa: E402
from capsmith.types import Greedy  # noqa: E402
from tests.unit.models.toys import END, KINDS, ROWS, START, WIDTH, WORDS, language_model  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden"
needs_recordings = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no recordings at {GOLDEN}")

CAPTIONS = [[5, 6, 7, 8], [9, 0], [10, 11, 12]]


def captioner(kind: str, *, seed: int = 0, **sizes: Any) -> CaptionModel:
    language = language_model(kind, seed=seed, **sizes)
    mapper = MLPMapper(MLPConfig(input_width=20, rows=ROWS, width=WIDTH))
    return CaptionModel(mapper, language, start_tokens=[START], end_token=END).eval()


def features(photos: int) -> torch.Tensor:
    return torch.randn(photos, 1, 20, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_anywhere_changes_no_logit_and_no_loss(kind: str) -> None:
    model = captioner(kind)
    right, right_mask = model.tensors(CAPTIONS)
    left, left_mask = torch.full_like(right, 33), right_mask.flip(1)
    left[left_mask] = right[right_mask]
    between_mask = torch.zeros(3, 9, dtype=torch.bool)
    between_mask[:, [0, 2, 3, 6, 7, 8]] = right_mask
    between = torch.full((3, 9), 44)
    between[between_mask] = right[right_mask]
    with torch.inference_mode():
        expected = model(features(3), right, right_mask)[right_mask]
        loss = model.loss(features(3), right, right_mask)
        for tokens, mask in ((left, left_mask), (between, between_mask)):
            logits = model(features(3), tokens, mask)[mask]
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
            padded = model.loss(features(3), tokens, mask)
            torch.testing.assert_close(padded, loss, atol=1e-5, rtol=1e-5)
        alone = model.loss(features(3)[1:2], *model.tensors(CAPTIONS[1:2]))
        words = torch.log_softmax(expected, 1)
    assert alone.item() > 0
    # Two words and the end token of the second caption, after the six rows of the first.
    chosen = [words[6, 9], words[7, 0], words[8, END]]
    torch.testing.assert_close(alone, -torch.stack(chosen).mean(), atol=1e-4, rtol=1e-4)


def test_labels_are_the_words_and_the_end_token_and_nothing_else() -> None:
    model = captioner("gpt2")
    tokens, mask = model.tensors(CAPTIONS)
    labels = model.labels(tokens, mask, ROWS + tokens.shape[1])
    no = IGNORED
    assert labels.tolist() == [
        [no, no, no, no, 5, 6, 7, 8, END],
        [no, no, no, no, 9, 0, END, no, no],  # token 0 is a word like any other
        [no, no, no, no, 10, 11, 12, END, no],
    ]


def test_the_end_token_may_be_what_pads() -> None:
    model = captioner("gpt2")
    tokens, mask = model.tensors(CAPTIONS)
    assert (tokens[~mask] == END).all()
    assert (tokens[mask] == END).sum() == len(CAPTIONS)


def test_the_loss_changes_neither_tokens_nor_mask() -> None:
    model = captioner("gpt2")
    tokens, mask = model.tensors(CAPTIONS)
    before = tokens.clone(), mask.clone(), features(3)
    first = model.loss(features(3), tokens, mask)
    assert tokens.equal(before[0])
    assert mask.equal(before[1])
    torch.testing.assert_close(model.loss(features(3), tokens, mask), first)


@pytest.mark.parametrize("kind", ["gpt2", "lstm"])
def test_a_caption_can_be_learned_by_heart_with_its_end(kind: str) -> None:
    model = captioner(kind, seed=4).train()
    tokens, mask = model.tensors(CAPTIONS)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(features(3), tokens, mask)
        loss.backward()
        optimizer.step()
    # A soft-max before the cross entropy would hold it over ln(WORDS) - 1.
    assert loss.item() < 0.5 < math.log(WORDS) - 1
    engine = TorchEngine(model.eval().language_model, vocab_size=WORDS)
    prefix = model.mapper(features(3)).detach().numpy()
    rules = Rules(prompt=(START,), stop=frozenset({END}), max_tokens=12)
    found = [photo[0] for photo in decode(engine, prefix, Greedy(), rules)]
    assert [list(caption.token_ids) for caption in found] == CAPTIONS
    assert {caption.finish_reason for caption in found} == {"stop"}


def test_without_a_start_token_the_prefix_predicts_the_first_word() -> None:
    mapper = MLPMapper(MLPConfig(input_width=20, rows=ROWS, width=WIDTH))
    model = CaptionModel(mapper, language_model("gpt2"), start_tokens=[], end_token=END)
    tokens, mask = model.tensors(CAPTIONS)
    assert model.labels(tokens, mask, ROWS + 5)[0].tolist() == [IGNORED] * 3 + [5, 6, 7, 8, END]
    loss = model.loss(features(3), tokens, mask)
    loss.backward()
    assert mapper.model[0].weight.grad.abs().sum() > 0
    for kind in ("cross-attention", "gru"):
        deaf = CaptionModel(mapper, language_model(kind), start_tokens=[], end_token=END)
        with pytest.raises(ConfigError, match="captions need a start token"):
            deaf.loss(features(3), tokens, mask)


def test_captions_of_one_photo_share_its_prefix() -> None:
    model = captioner("gpt2")
    tokens, mask = model.tensors(CAPTIONS)
    owner = torch.tensor([1, 0, 1])
    shared = model(features(2), tokens, mask, owner)
    torch.testing.assert_close(shared, model(features(2)[owner], tokens, mask))


def test_parts_that_do_not_fit_are_refused() -> None:
    narrow = MLPMapper(MLPConfig(input_width=20, rows=ROWS, width=32))
    with pytest.raises(ConfigError, match="32 wide, the language model reads 64"):
        CaptionModel(narrow, language_model("gpt2"), start_tokens=[START], end_token=END)
    mapper = MLPMapper(MLPConfig(input_width=20, rows=ROWS, width=WIDTH))
    with pytest.raises(ConfigError, match=f"token {WORDS} is outside"):
        CaptionModel(mapper, language_model("gpt2"), start_tokens=[WORDS], end_token=END)
    with pytest.raises(ConfigError, match="no encoder"):
        captioner("gpt2").features(torch.zeros(1, 3, 8, 8))


@needs_recordings
@pytest.mark.parametrize("family", ["clipcap-mlp", "capdec-encdec"])
def test_logits_are_those_of_the_ancestors_wherever_a_token_is_real(family: str) -> None:
    """Also: positions are added once, over prefix and caption together."""
    folder = GOLDEN / family
    sizes = json.loads((GOLDEN / "index.json").read_text())["families"][family]["sizes"]
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    weights = {k.removeprefix("gpt."): v for k, v in state.items() if k.startswith("gpt.")}
    model = load_gpt2(weights, heads=sizes["n_head"])
    tokens, prefix, recorded = (
        torch.from_numpy(np.load(folder / f"{name}.npy"))
        for name in ("forward_tokens", "prefix_embeddings", "forward_logits")
    )
    mask = np.load(folder / "forward_mask.npy").astype(bool)
    with torch.inference_mode():
        logits = model.head(model.hidden(tokens, prefix, torch.arange(len(tokens))))
    np.testing.assert_allclose(logits.numpy()[mask], recorded.numpy()[mask], atol=1e-4)
