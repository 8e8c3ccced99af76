"""The ONNX engine on a real graph of a decoder that attends to the prefix."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from capsmith.errors import BundleError
from capsmith.export.graphs import export_decoder
from capsmith.models.engine import TorchEngine
from capsmith.models.language_models import CrossAttentionConfig, CrossAttentionDecoder
from capsmith.runtime.decoding import Rules, decode
from capsmith.runtime.engine import OnnxEngine, Want
from capsmith.runtime.session import open_session
from capsmith.types import Beam, Greedy

VOCABULARY, WIDTH = 61, 32
RULES = Rules(prompt=(1,), stop=frozenset({2}), max_tokens=9)
EVERYTHING = Want(top=5, logits=True, hidden=True)


def random_decoder() -> CrossAttentionDecoder:
    torch.manual_seed(0)
    module = CrossAttentionDecoder(
        CrossAttentionConfig(vocab_size=VOCABULARY, width=WIDTH, layers=2, heads=4, positions=20)
    ).eval()
    for parameter in module.parameters():
        parameter.data.normal_(std=0.4)
    return module


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    export_decoder(random_decoder(), path)
    return path


@pytest.fixture(scope="module")
def engine(path: Path) -> OnnxEngine:
    return OnnxEngine(open_session(path, threads=1))


def prefixes(count: int, rows: int = 7) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, rows, WIDTH)).astype(np.float32)


def test_scores_are_those_of_the_module_while_rows_come_and_go(engine: OnnxEngine) -> None:
    reference = TorchEngine(random_decoder(), vocab_size=VOCABULARY)
    prompt = np.array([[1, 8, 9], [1, 4, 4]])
    state, scores = engine.start(prefixes(2), prompt, EVERYTHING)
    other, expected = reference.start(prefixes(2), prompt, EVERYTHING)
    for tokens, parents in (([3, 4, 5], [1, 0, 1]), ([6], [2]), ([7, 8, 9, 3], [0, 0, 0, 0])):
        np.testing.assert_array_equal(scores.top_ids, expected.top_ids)
        np.testing.assert_allclose(scores.top_logprobs, expected.top_logprobs, atol=1e-5)
        np.testing.assert_allclose(scores.logits, expected.logits, atol=1e-5)
        np.testing.assert_allclose(scores.hidden, expected.hidden, atol=1e-5)
        rows = np.array(tokens), np.array(parents)
        state, scores = engine.step(state, *rows, EVERYTHING)
        other, expected = reference.step(other, *rows, EVERYTHING)


def test_top_logprobs_are_normalised_and_descending(engine: OnnxEngine) -> None:
    _, scores = engine.start(prefixes(3), np.ones((3, 1), np.int64), Want(top=1000, logits=True))
    assert engine.vocab_size == VOCABULARY
    assert scores.top_ids.shape == (3, VOCABULARY)
    assert (np.diff(scores.top_logprobs, axis=1) <= 0).all()
    np.testing.assert_allclose(np.exp(scores.top_logprobs).sum(1), 1, rtol=1e-5)
    assert scores.logits is not None
    np.testing.assert_array_equal(scores.logits.argmax(1), scores.top_ids[:, 0])


def test_only_what_is_wanted_is_given(engine: OnnxEngine) -> None:
    _, scores = engine.start(prefixes(1), np.ones((1, 1), np.int64), Want(top=2))
    assert scores.top_ids.shape == (1, 2)
    assert scores.logits is None
    assert scores.hidden is None


def test_old_states_stay_valid(engine: OnnxEngine) -> None:
    start, _ = engine.start(prefixes(2), np.ones((2, 1), np.int64), EVERYTHING)
    step = np.array([7, 9]), np.array([1, 0])
    _, once = engine.step(start, *step, EVERYTHING)
    branch, _ = engine.step(start, np.array([5]), np.array([0]), EVERYTHING)
    engine.step(branch, np.array([6]), np.array([0]), EVERYTHING)
    _, again = engine.step(start, *step, EVERYTHING)
    np.testing.assert_array_equal(once.logits, again.logits)


def test_states_of_another_engine_are_refused(engine: OnnxEngine) -> None:
    with pytest.raises(TypeError, match="not one that this engine made"):
        engine.step("state", np.array([1]), np.array([0]), Want())


def test_threads_share_an_engine(engine: OnnxEngine) -> None:
    prefix = prefixes(24)
    alone = [decode(engine, prefix[i : i + 1], Beam(size=3), RULES)[0] for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda i: decode(engine, prefix[i : i + 1], Beam(size=3), RULES)[0], range(24))
        )
    assert together == alone


@pytest.mark.parametrize("threads", [1, 2])
def test_captions_are_those_of_the_module(path: Path, threads: int) -> None:
    reference = TorchEngine(random_decoder(), vocab_size=VOCABULARY)
    engine = OnnxEngine(open_session(path, threads=threads))
    for strategy in (Greedy(), Beam(size=4)):
        ours = decode(engine, prefixes(8), strategy, RULES)
        theirs = decode(reference, prefixes(8), strategy, RULES)
        assert [h[0].token_ids for h in ours] == [h[0].token_ids for h in theirs]


def test_graphs_that_are_no_decoder_are_refused(tmp_path: Path) -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["pixels"], ["features"])],
            "encoder",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    model.ir_version = 10
    onnx.save(model, tmp_path / "encoder.onnx")
    session = open_session(tmp_path / "encoder.onnx")
    with pytest.raises(BundleError, match=r"encoder\.onnx: not a decoder graph, it lacks hidden,"):
        OnnxEngine(session, name="encoder.onnx")
