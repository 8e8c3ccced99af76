"""A decoder of several languages keeps to the words of the one that it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from capsmith.export.graphs import export_decoder
from capsmith.export.parity import compare_decoder
from capsmith.models.engine import TorchEngine
from capsmith.models.graph_weights import load_weights
from capsmith.models.language_models import CrossAttentionConfig, CrossAttentionDecoder
from capsmith.runtime.decoding import decode
from capsmith.runtime.engine import Engine, OnnxEngine
from capsmith.runtime.rules import Rules
from capsmith.runtime.session import open_session
from capsmith.types import Beam, Greedy

START, STOP, EN, DE = 0, 1, 10, 11
ENGLISH, GERMAN = {STOP, 2, 3, 4}, {STOP, 5, 6, 7}
CONFIG = CrossAttentionConfig(vocab_size=12, width=16, layers=2, heads=2, positions=12, languages=2)
PREFIX = np.random.default_rng(0).standard_normal((6, 3, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def decoder() -> CrossAttentionDecoder:
    """One that would say English words whatever it is asked for."""
    torch.manual_seed(0)
    decoder = CrossAttentionDecoder(CONFIG).eval()
    decoder.keep_to({EN: torch.tensor(sorted(ENGLISH)), DE: torch.tensor(sorted(GERMAN))})
    with torch.no_grad():
        decoder.bias[[2, 3, 4]] += 20
        decoder.bias[[EN, DE, START]] -= 40
    return decoder


@pytest.fixture(scope="module")
def graph(decoder: CrossAttentionDecoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "decoder.onnx"
    export_decoder(decoder, path)
    return path


def rules(*prompt: int) -> Rules:
    return Rules(prompt=(START, *prompt), stop=frozenset({STOP}), max_tokens=6, min_tokens=3)


@pytest.mark.parametrize("strategy", [Greedy(), Beam(size=4)])
def test_words_are_those_of_the_language_asked_for(
    decoder: CrossAttentionDecoder, graph: Path, strategy: Greedy | Beam
) -> None:
    engines: list[Engine] = [
        TorchEngine(decoder, vocab_size=12),
        OnnxEngine(open_session(graph, threads=1, device="cpu")),
    ]
    for engine in engines:
        for token, words in ((EN, ENGLISH), (DE, GERMAN)):
            found = decode(engine, PREFIX, strategy, rules(token))
            said = {word for rows in found for row in rows for word in row.token_ids}
            assert said
            assert said <= words
        free = decode(engine, PREFIX, strategy, rules())
        assert {word for rows in free for row in rows for word in row.token_ids} & {2, 3, 4}


def test_log_probabilities_are_among_the_language_s_words(graph: Path) -> None:
    engine = OnnxEngine(open_session(graph, threads=1, device="cpu"))
    (best, *_), *_ = decode(engine, PREFIX, Greedy(), rules(DE))
    assert best.logprob > -3 * len(best.token_ids), "English words, e**20 times as likely, count"


def test_the_graph_is_that_of_the_module_and_back(
    decoder: CrossAttentionDecoder, graph: Path
) -> None:
    parity = compare_decoder(decoder, graph, PREFIX, rules(DE), tolerance=1e-4)
    assert parity.captions == 1
    again = CrossAttentionDecoder(CONFIG)
    load_weights(again, graph)
    assert again.own_words.equal(decoder.own_words)
    assert again.language_tokens.tolist() == [EN, DE]


def test_words_are_added_to_those_that_are_known(decoder: CrossAttentionDecoder) -> None:
    again = CrossAttentionDecoder(CONFIG)
    again.load_state_dict(decoder.state_dict())
    again.keep_to({EN: torch.tensor([STOP, 8]), DE: torch.tensor([STOP])})
    assert set(again.own_words[1].nonzero()[:, 0].tolist()) == ENGLISH | {8}
    assert again.own_words[2].equal(decoder.own_words[2])
